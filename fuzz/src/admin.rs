use hookturn::daemon::{AdoptedSecret, Failure, Reply, Request, Status, Story};
use hookturn::secret::Secret;
use serde::{Serialize, de::DeserializeOwned};

/// What comes through the control socket, from either side: requests of commands, answers of a daemon.
pub fn admin(data: &[u8]) {
    if let Some(Request::Adopt { secret: AdoptedSecret::Given(text) }) = stable::<Request>(data)
        && let Err(bad) = Secret::parse(&text)
    {
        super::no_signing_secret(&text, &bad.to_string());
    }
    stable::<Reply>(data);
    stable::<Failure>(data);
    stable::<Story>(data);
    stable::<Vec<Status>>(data);
}

/// Once read, it is written and read without a change. It need not be the text that it came in.
fn stable<T: DeserializeOwned + Serialize>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_string(&read).expect("what was read can be written");
    let again: T = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).expect("text"), text);
    Some(read)
}
