//! The keys that are accepted: the last good content of the keystore file.
//!
//! The file is read as docs/consumers.md asks of every consumer, and not with the daemon's own reader: the daemon refuses what
//! it would not have written, a consumer makes the best of what is there.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::secret::{Keyring, Kid, Secret, Standing};

/// How often the file is read. It is small, and reading it needs no cleverness about how it was replaced.
const EVERY: Duration = Duration::from_millis(500);
const MAX_BYTES: usize = 1024 * 1024;

/// Makes every watch look at once (SIGHUP).
pub type Poke = Arc<Notify>;

/// The accepted keys now.
pub(super) struct Keys {
    /// 0: nothing could be read yet.
    pub generation: u64,
    pub keyring: Keyring,
    /// In the order of the keyring; the first one is the current key, where there is one.
    pub kids: Vec<Kid>,
}

/// Read for each delivery, without a lock.
pub(super) type SharedKeys = Arc<ArcSwap<Keys>>;

/// What a file says, whatever of it is accepted at the moment.
struct File {
    generation: u64,
    entries: Vec<Entry>,
}

struct Entry {
    kid: Kid,
    secret: Secret,
    current: bool,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

pub(super) struct Watch {
    path: PathBuf,
    webhook: String,
    keys: SharedKeys,
    /// The newest bytes, good or not: the same ones are not parsed again.
    bytes: Zeroizing<Vec<u8>>,
    file: Option<File>,
    /// The trouble that was told.
    trouble: Option<String>,
}

impl Watch {
    /// Reads the file once.
    pub async fn begin(path: PathBuf, webhook: &str) -> Watch {
        let none = Keys { generation: 0, keyring: Keyring::new(Vec::new()), kids: Vec::new() };
        let keys = Arc::new(ArcSwap::from_pointee(none));
        let watch = Watch { path, webhook: webhook.to_owned(), keys, bytes: Zeroizing::default(), file: None, trouble: None };
        watch.look().await
    }

    pub fn keys(&self) -> SharedKeys {
        self.keys.clone()
    }

    /// Goes on looking until `end`. A disk that stalls keeps only this task from going on.
    pub async fn go_on(mut self, poke: Poke, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = poke.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            self = self.look().await;
        }
    }

    async fn look(mut self) -> Watch {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        match read {
            Ok(Ok(bytes)) if *bytes == *self.bytes => {}
            Ok(Ok(bytes)) => {
                match parse(&bytes) {
                    // A lower generation is an older file that somebody put back, and the daemon says so. The keys in it are
                    // the ones that every other consumer reads now.
                    Ok(file) => {
                        self.file = Some(file);
                        self.told(None);
                    }
                    Err(reason) => self.told(Some(reason.to_owned())),
                }
                self.bytes = bytes;
            }
            Ok(Err(error)) => self.told(Some(error.to_string())),
            Err(_) => self.told(Some("the thread that read it ended early".to_owned())),
        }
        self.publish(Utc::now());
        self
    }

    fn told(&mut self, trouble: Option<String>) {
        if self.trouble == trouble {
            return;
        }
        let path = self.path.display();
        match &trouble {
            Some(reason) if self.file.is_some() => {
                tracing::error!(webhook = self.webhook, "{path}: {reason}; going on with the last good keys");
            }
            Some(reason) => tracing::error!(webhook = self.webhook, "{path}: {reason}; there are no keys yet"),
            None => tracing::info!(webhook = self.webhook, "{path}: readable again"),
        }
        self.trouble = trouble;
    }

    /// What is accepted changes with the file, and with the time that a key has.
    fn publish(&self, now: DateTime<Utc>) {
        let Some(file) = &self.file else { return };
        let mut accepted: Vec<&Entry> = file.entries.iter().filter(|entry| entry.accepted_at(now)).collect();
        accepted.sort_by_key(|entry| !entry.current);
        let kids: Vec<Kid> = accepted.iter().map(|entry| entry.kid).collect();
        let known = self.keys.load();
        let same = known.generation == file.generation
            && known.kids == kids
            && accepted.iter().all(|entry| known.keyring.secret(entry.kid).is_some_and(|secret| secret.same_as(&entry.secret)));
        if same {
            return;
        }
        let ring = accepted.iter().map(|entry| (entry.kid, entry.secret.clone(), Standing::Accepted)).collect();
        tracing::info!(webhook = self.webhook, generation = file.generation, ?kids, "keys");
        self.keys.store(Arc::new(Keys { generation: file.generation, keyring: Keyring::new(ring), kids }));
    }
}

impl Entry {
    fn accepted_at(&self, now: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

fn read(path: &std::path::Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::{io::Read, os::unix::fs::OpenOptionsExt};
    // Never waits for the other end of a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // Reserved at once, so that no half-grown copy of a secret is left in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Raw {
    version: u64,
    generation: u64,
    keys: Vec<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    kid: Kid,
    state: String,
    #[serde(deserialize_with = "wiped")]
    secret: Zeroizing<String>,
    #[serde(default)]
    accept_from: Option<DateTime<Utc>>,
    #[serde(default)]
    accept_until: Option<DateTime<Utc>>,
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

/// A key in an unknown state is left out; anything else that is wrong refuses the file. The reason quotes nothing of it.
fn parse(bytes: &[u8]) -> Result<File, &'static str> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|_| "this is not a keystore file")?;
    if raw.version != 1 {
        return Err("it has a version that this hookturn does not know");
    }
    if raw.keys.iter().map(|key| key.kid).collect::<BTreeSet<_>>().len() != raw.keys.len() {
        return Err("a key id is there twice");
    }
    let known = |key: &RawKey| matches!(key.state.as_str(), "current" | "pending" | "previous");
    let entry = |key: RawKey| {
        let secret = Secret::parse(&key.secret).map_err(|_| "a secret in it cannot be one")?;
        let (kid, current) = (key.kid, key.state == "current");
        Ok(Entry { kid, secret, current, from: key.accept_from, until: key.accept_until })
    };
    let entries: Result<Vec<Entry>, &'static str> = raw.keys.into_iter().filter(known).map(entry).collect();
    Ok(File { generation: raw.generation, entries: entries? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(generation: u64, keys: &str) -> String {
        format!(r#"{{"version":1,"generation":{generation},"keys":[{keys}],"later":1}}"#)
    }

    async fn watch(text: &str) -> (tempfile::TempDir, Watch) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secrets.json");
        std::fs::write(&path, text).expect("write");
        (dir, Watch::begin(path, "billing").await)
    }

    fn kids(watch: &Watch) -> (u64, Vec<String>) {
        let keys = watch.keys.load();
        (keys.generation, keys.kids.iter().map(ToString::to_string).collect())
    }

    const PENDING: &str = r#"{"kid":"new","state":"pending","secret":"whsec_new"}"#;
    const CURRENT: &str = r#"{"kid":"now","state":"current","secret":"whsec_now","accept_until":null}"#;

    #[tokio::test]
    async fn every_listed_key_is_accepted_within_its_times_and_in_a_known_state() {
        let burnt = r#"{"kid":"x","state":"burnt","secret":"whsec_x"}"#;
        let late = r#"{"kid":"y","state":"previous","secret":"whsec_y","accept_until":"2020-01-01T00:00:00Z"}"#;
        let (_dir, watch) = watch(&file(7, &[PENDING, CURRENT, burnt, late].join(","))).await;
        assert_eq!(kids(&watch), (7, vec!["now".to_owned(), "new".to_owned()]));
    }

    #[tokio::test]
    async fn a_broken_or_missing_file_leaves_the_last_good_keys_and_an_empty_one_accepts_nothing() {
        let (dir, mut watch) = watch(&file(7, CURRENT)).await;
        let good = kids(&watch);
        let path = dir.path().join("secrets.json");
        let twice = file(8, &[CURRENT, CURRENT].join(","));
        for bad in ["", "{", r#"{"version":2,"generation":9,"keys":[]}"#, &twice] {
            std::fs::write(&path, bad).expect("write");
            watch = watch.look().await;
            assert_eq!(kids(&watch), good, "{bad}");
        }
        std::fs::remove_file(&path).expect("remove");
        watch = watch.look().await;
        assert_eq!(kids(&watch), good);
        std::fs::write(&path, file(8, "")).expect("write");
        watch = watch.look().await;
        assert_eq!(kids(&watch), (8, vec![]));
    }

    #[tokio::test]
    async fn a_key_runs_out_although_nobody_writes() {
        let until = Utc::now() + chrono::TimeDelta::days(1);
        let key = format!(r#"{{"kid":"a","state":"previous","secret":"whsec_a","accept_until":"{}"}}"#, until.to_rfc3339());
        let (_dir, watch) = watch(&file(3, &key)).await;
        assert_eq!(kids(&watch).1, ["a"]);
        watch.publish(until);
        assert_eq!(kids(&watch), (3, vec![]));
    }
}
