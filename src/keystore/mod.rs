//! The consumer's dual-secret keystore: where hookturn puts the secrets that a consumer is to accept.
//!
//! Every back-end implements [`Keystore`] and passes the one conformance suite in `tests/keystore_contract.rs`:
//!
//! - [`FileKeystore`]: a file that is replaced atomically, as JSON or as the variables `CURRENT` and `PREVIOUS`.
//! - [`ExecKeystore`]: a program of the user's, for everything that has no back-end of its own.
//! - [`MemoryKeystore`]: for the simulator and tests, with faults on demand.
//!
//! Beside them, [`status`] reads what consumer replicas say about the keystore they have loaded.

mod admission;
mod bounded;
mod exec;
mod file;
mod memory;
mod program;
pub mod status;

pub use exec::ExecKeystore;
pub use file::FileKeystore;
pub use memory::{Fault, MemoryKeystore};
use status::StatusReport;

use async_trait::async_trait;

use crate::{
    config,
    secret::{Kid, Secret},
};

/// The keystore that a webhook's configuration asks for. `webhook` is its name, `id` DialNexa's id of it. Touches nothing.
pub fn build(config: &config::Keystore, webhook: &str, id: &str) -> Box<dyn Keystore> {
    match config {
        config::Keystore::File { path, format, reload } => {
            Box::new(FileKeystore::new(path.clone(), *format, reload.clone(), id.to_owned()))
        }
        config::Keystore::Exec { command, slots } => {
            Box::new(ExecKeystore::new(command.clone(), webhook.to_owned(), id.to_owned(), *slots))
        }
    }
}

/// One keystore of one webhook.
///
/// What a crash means: before [`Keystore::write`] is called nothing has changed; while it runs either the old or the new
/// content is there, whole, never a mixture; after it returned `Ok` the new content survives a power cut. Nobody relies on
/// the answer of a write: the caller always reads back.
#[async_trait]
pub trait Keystore: Send + Sync {
    /// How many keys fit; `None` is any number.
    fn slots(&self) -> Option<u8>;

    /// Where it is, for messages: `file /var/lib/hookturn-keys/billing/secrets.json`.
    fn place(&self) -> String;

    /// What is there now. `None`: no content at all (a missing file).
    async fn read(&self) -> Result<Option<Contents>, KeystoreError>;

    /// Replaces the content, if the generation there is still `expect` (`None`: nothing is there). Every key of `next`
    /// carries its secret. Refused with [`KeystoreError::Conflict`] otherwise, and where the generation would fall. The
    /// same content again is `Ok`, whatever `expect` says; another content may take the place of `expect` under the same
    /// generation, which is how a keystore that somebody edited by hand is put right.
    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError>;

    /// Makes the consumer look, where the back-end has such a hook (`reload`). Safe to repeat.
    async fn reload(&self) -> Result<(), KeystoreError> {
        Ok(())
    }

    /// What consumer replicas say about what they have loaded. `None`: this back-end has no place for it.
    async fn status(&self) -> Option<StatusReport> {
        None
    }

    /// What can be said before the first rotation without changing anything: missing directories, wrong owners, programs
    /// that do not exist. One sentence each, with the way out.
    async fn inspect(&self) -> Vec<Finding>;
}

/// The content of a keystore.
#[derive(Clone)]
pub struct Contents {
    /// Rises with every write; never 0.
    pub generation: u64,
    pub keys: Vec<Key>,
}

/// One key. A consumer accepts every listed key, whatever its state.
#[derive(Clone)]
pub struct Key {
    pub kid: Kid,
    pub state: KeyState,
    /// `None` where the back-end does not give values back.
    pub secret: Option<Secret>,
}

/// Bookkeeping for people, and the order in which keys are listed: what DialNexa is believed to sign with comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    Current,
    Pending,
    Previous,
}

impl KeyState {
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Current => "current",
            KeyState::Pending => "pending",
            KeyState::Previous => "previous",
        }
    }

    pub fn parse(text: &str) -> Option<KeyState> {
        [KeyState::Current, KeyState::Pending, KeyState::Previous].into_iter().find(|state| state.as_str() == text)
    }
}

/// What `check` says of a keystore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A rotation cannot work like this (as against: it can, but a person should know).
    pub fatal: bool,
    pub text: String,
}

/// What went wrong at a keystore. The message names the place and the way out; it never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Somebody else wrote in between.
    #[error("{place}: generation {found} is there where {expected} was expected: somebody else wrote it")]
    Conflict { place: String, expected: String, found: String },
    /// There is content that is not a keystore. It is never overwritten.
    #[error(
        "{place}: not a keystore: {reason}; hookturn overwrites nothing that it cannot read: move it away, and it is written anew"
    )]
    Unreadable { place: String, reason: String },
    /// The content does not fit (more keys than slots, a value the format cannot hold).
    #[error("{place}: {reason}")]
    DoesNotFit { place: String, reason: String },
    /// Permission, disk, network: tried again.
    #[error("{place}: {action}: {reason}")]
    Failed { place: String, action: &'static str, reason: String },
    /// The content is in place, but the consumer could not be told.
    #[error("{place}: written, but the reload command failed: {reason}")]
    ReloadFailed { place: String, reason: String },
}
