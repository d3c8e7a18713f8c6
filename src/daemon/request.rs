//! What a command asks the daemon for, in process or through the control socket.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::store::{Attempt, Evidence, JournalLine};

/// Something to be done to one webhook.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// The secret that is there already, as text. It crosses the control socket once and is sealed at once.
    Adopt {
        secret: AdoptedSecret,
    },
    Rotate {
        compromised: bool,
        unconfirmed: bool,
    },
    Abort,
    Rollback,
    Supersede,
    /// Accept a retired secret again for a while; `None` is the newest one.
    Reaccept {
        kid: Option<String>,
        for_ms: u64,
    },
    /// Replicas that have vanished are gone for good; none named: all of them.
    Dismiss {
        replicas: Vec<String>,
    },
    Pause,
    Resume,
    /// Hand out the accepted secrets. The only reply that holds any.
    Eject,
    /// Probe every replica with both bodies and the current secret.
    TryProbe,
}

/// Where an adopted secret comes from. Not printable: it may hold the value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdoptedSecret {
    Given(String),
    FromKeystore,
    Unknown,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// One sentence for a person.
    pub text: String,
    /// The rotation that this is about.
    pub rotation: Option<u64>,
    /// It was under way already and was joined.
    pub joined: bool,
}

/// Why it was not done. `exit` is the command's exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub exit: u8,
    pub text: String,
}

/// Everything that `explain` and `history` tell beside the status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Story {
    pub journal: Vec<JournalLine>,
    pub attempts: Vec<Attempt>,
    pub evidence: Vec<Evidence>,
}

/// Where commands go: a daemon in this process, or one behind the control socket. Both pass the same tests.
#[async_trait]
pub trait Office: Send + Sync {
    /// Every webhook of the configuration, in its order. Answers also while the store is in trouble.
    async fn status(&self) -> Result<Vec<Status>, Failure>;

    async fn perform(&self, webhook: &str, request: Request, actor: &str) -> Result<Reply, Failure>;

    /// The store it works on, so that a command never talks to the daemon of another one. Empty: not known.
    async fn home(&self) -> Result<String, Failure> {
        Ok(String::new())
    }

    /// The newest `limit` journal lines, attempts and rows of evidence, oldest first.
    async fn story(&self, webhook: &str, limit: u32) -> Result<Story, Failure>;
}
