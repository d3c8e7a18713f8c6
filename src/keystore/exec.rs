use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Contents, Finding, Key, KeyState, Keystore, KeystoreError,
    admission::{conflict, fits},
    program::{self, Ended},
};
use crate::{
    config::Command,
    secret::{Kid, redact},
};

/// A keystore behind a program of the user's: one run per operation, JSON on stdin and stdout.
///
/// ```text
/// stdin   {"op":"read","webhook":"billing"}
/// stdin   {"op":"write","webhook":"billing","expect_generation":6,"generation":7,"keys":[{"kid":"..","state":"..","secret":".."}]}
/// stdout  {"generation":7,"kids":["..",".."]}
/// ```
///
/// - `expect_generation` is null where nothing was there. Exit 9: the generation there is another one. Any other exit but
///   0 is a failure that is tried again, and the last line on stderr is shown to a person.
/// - A read that prints nothing, or a null generation, says that nothing is there. A write may print nothing.
/// - Values are never read back: every [`Key::secret`] is `None` and every state [`KeyState::Pending`]. That a kid names
///   the value it was written with is the program's promise.
/// - The environment is PATH, HOME, HOOKTURN_WEBHOOK (the name) and HOOKTURN_WEBHOOK_ID, and nothing else.
pub struct ExecKeystore {
    command: Command,
    webhook: String,
    id: String,
    slots: Option<u8>,
}

/// The program's way to say that somebody else wrote in between.
const EXIT_CONFLICT: i32 = 9;

impl ExecKeystore {
    /// `webhook` is the configured name, `id` DialNexa's id; `slots` is how many keys the program can keep.
    pub fn new(command: Command, webhook: String, id: String, slots: Option<u8>) -> ExecKeystore {
        ExecKeystore { command, webhook, id, slots }
    }

    async fn call(&self, action: &'static str, request: &Request<'_>) -> Result<Ended, KeystoreError> {
        let mut stdin = Zeroizing::new(Vec::with_capacity(64 * 1024));
        serde_json::to_writer(&mut *stdin, request).map_err(|error| self.failed(action, error.to_string()))?;
        let env = [("HOOKTURN_WEBHOOK", self.webhook.as_str()), ("HOOKTURN_WEBHOOK_ID", self.id.as_str())];
        program::run(&self.command, &env, &stdin).await.map_err(|error| self.failed(action, error.to_string()))
    }

    fn answer(&self, action: &'static str, ended: &Ended) -> Result<Option<Answer>, KeystoreError> {
        if ended.stdout_cut {
            return Err(self.failed(action, "the program printed more than 64 KiB".to_owned()));
        }
        if ended.stdout.trim_ascii().is_empty() {
            return Ok(None);
        }
        // The parser's own words are left out: they may quote what was printed.
        serde_json::from_slice(&ended.stdout).map(Some).map_err(|error| {
            let at = format!("line {} column {}", error.line(), error.column());
            self.failed(action, format!("the program did not print {{\"generation\":7,\"kids\":[\"..\"]}} ({at})"))
        })
    }

    /// A conflict with ourselves is none: the first answer of this write was lost.
    async fn refused(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        let found = self.read().await?;
        match found {
            Some(found) if found.generation == next.generation && lists(&kids_of(&found), next) => Ok(()),
            found => Err(conflict(&self.place(), expect, found.map(|found| found.generation))),
        }
    }

    fn failed(&self, action: &'static str, reason: String) -> KeystoreError {
        KeystoreError::Failed { place: self.place(), action, reason }
    }

    fn exit_error(&self, action: &'static str, ended: &Ended, secrets: &Contents) -> KeystoreError {
        let code = ended.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit {code}"));
        let known: Vec<_> = secrets.keys.iter().filter_map(|key| key.secret.as_ref()).collect();
        let line = redact(&ended.last_line, &known);
        self.failed(action, format!("the program ended with {code}: {line}"))
    }
}

#[async_trait]
impl Keystore for ExecKeystore {
    fn slots(&self) -> Option<u8> {
        self.slots
    }

    fn place(&self) -> String {
        format!("program {}", self.command.argv.first().map_or("(none)", String::as_str))
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        let ended = self.call("read", &Request::read(&self.webhook)).await?;
        if ended.code != Some(0) {
            return Err(self.exit_error("read", &ended, &Contents { generation: 0, keys: Vec::new() }));
        }
        match self.answer("read", &ended)? {
            Some(Answer { generation: Some(generation @ 1..), kids }) => Ok(Some(contents(generation, kids))),
            Some(Answer { generation: Some(0), kids }) if !kids.is_empty() => {
                Err(self.failed("read", "the program says generation 0 and lists keys; generations begin with 1".to_owned()))
            }
            _ => Ok(None),
        }
    }

    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        fits(&self.place(), self.slots, next)?;
        if expect.is_some_and(|expect| next.generation < expect) {
            return Err(conflict(&self.place(), Some(next.generation), expect));
        }
        let ended = self.call("write", &Request::write(&self.webhook, expect, next)).await?;
        match ended.code {
            Some(0) => {}
            Some(EXIT_CONFLICT) => return self.refused(expect, next).await,
            _ => return Err(self.exit_error("write", &ended, next)),
        }
        match self.answer("write", &ended)? {
            None => Ok(()),
            Some(answer) if answer.generation == Some(next.generation) && lists(&answer.kids, next) => Ok(()),
            Some(_) => Err(self.failed("write", "the program says that it wrote something else than it was given".to_owned())),
        }
    }

    async fn inspect(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut fatal = |text: String| findings.push(Finding { fatal: true, text });
        if let Some(slots @ 0..2) = self.slots {
            fatal(format!("{}: slots = {slots}: a rotation needs room for two keys", self.place()));
        }
        let program = self.command.argv.first().map_or("", String::as_str);
        if program::find(program).is_none() {
            fatal(format!("{program} is not a program that can be run: give its absolute path, and make it executable"));
        } else if let Err(error) = self.read().await {
            fatal(error.to_string());
        }
        findings
    }
}

/// What the program is asked. Holds secrets: no `Debug`.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request<'a> {
    Read { webhook: &'a str },
    Write { webhook: &'a str, expect_generation: Option<u64>, generation: u64, keys: Vec<RequestKey<'a>> },
}

#[derive(Serialize)]
struct RequestKey<'a> {
    kid: Kid,
    state: &'static str,
    secret: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    generation: Option<u64>,
    #[serde(default)]
    kids: Vec<Kid>,
}

impl<'a> Request<'a> {
    fn read(webhook: &'a str) -> Request<'a> {
        Request::Read { webhook }
    }

    fn write(webhook: &'a str, expect_generation: Option<u64>, next: &'a Contents) -> Request<'a> {
        let keys = next.keys.iter().filter_map(|key| {
            let secret = key.secret.as_ref()?.expose();
            Some(RequestKey { kid: key.kid, state: key.state.as_str(), secret })
        });
        Request::Write { webhook, expect_generation, generation: next.generation, keys: keys.collect() }
    }
}

fn contents(generation: u64, kids: Vec<Kid>) -> Contents {
    let keys = kids.into_iter().map(|kid| Key { kid, state: KeyState::Pending, secret: None }).collect();
    Contents { generation, keys }
}

fn kids_of(contents: &Contents) -> Vec<Kid> {
    contents.keys.iter().map(|key| key.kid).collect()
}

/// Whether `kids` are exactly the keys of `next`.
fn lists(kids: &[Kid], next: &Contents) -> bool {
    kids.len() == next.keys.len() && next.keys.iter().all(|key| kids.contains(&key.kid))
}
