//! What survives a crash: records, sealed secrets, the journal, attempts, evidence, probes.
//!
//! Every back-end implements [`Store`] and passes the one conformance suite in `tests/store_contract.rs`.

mod anchor;
mod memory;
mod private_file;
mod sqlite;

pub use anchor::{Anchor, AnchorState, Mark};
pub use memory::{Memory, Snapshot};
pub use sqlite::{Opening, Sqlite};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    rotation::{Entry, KidSet, Note, Record},
    secret::{Kid, Sealed},
};

/// Milliseconds since the Unix epoch. For people and schedules only; no protocol decision rests on it.
pub type UnixMillis = i64;

/// The durable side of hookturn. One process at a time.
///
/// What a crash means: before [`Store::commit`] returned, either all of the batch is there after a restart or nothing of it;
/// after it returned, all of it is there, also after a power cut. Effects are released only after that.
#[async_trait]
pub trait Store: Send + Sync {
    /// The random name that this store was given when it was made. An [`Anchor`] belongs to one store.
    fn id(&self) -> String;

    /// The number of this opening of the store; rises with every one. A commit from an earlier opening is refused.
    fn epoch(&self) -> u64;

    /// What the store and its surroundings look like: for `check` and the log.
    fn place(&self) -> String;

    /// Every webhook that was ever committed, in name order.
    async fn webhooks(&self) -> Result<Vec<Stored>, StoreError>;

    /// One webhook.
    async fn webhook(&self, name: &str) -> Result<Option<Stored>, StoreError>;

    /// Every sealed secret of a webhook, oldest first, the retired ones too: nothing is ever deleted.
    async fn secrets(&self, webhook: &str) -> Result<Vec<StoredSecret>, StoreError>;

    /// All or nothing, durable when it returns `Ok`. After an error nothing of the batch is there, and the same batch may be
    /// offered again; only where the process or the machine dies after a failed write, all of it may be there after all. A
    /// commit whose future is dropped is there as a whole or not at all.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// The newest `limit` journal lines of a webhook (of one rotation, where given), oldest first.
    async fn journal(&self, webhook: &str, rotation: Option<u64>, limit: u32) -> Result<Vec<JournalLine>, StoreError>;

    /// The newest `limit` attempts of a webhook, oldest first.
    async fn attempts(&self, webhook: &str, limit: u32) -> Result<Vec<Attempt>, StoreError>;

    /// The newest `limit` rows of evidence of a webhook, oldest first.
    async fn evidence(&self, webhook: &str, limit: u32) -> Result<Vec<Evidence>, StoreError>;

    /// The event log of a webhook with the record that it leads to, both of one commit. `None`: an unknown webhook.
    async fn event_log(&self, webhook: &str) -> Result<Option<EventLog>, StoreError>;

    /// Keyed hashes of every probe body of a webhook.
    async fn probes(&self, webhook: &str) -> Result<Vec<Probe>, StoreError>;

    /// The disk is full, and what is written goes into space that was kept back to finish what is under way. Nothing new should
    /// be begun.
    fn short_of_space(&self) -> bool {
        false
    }

    /// Closes cleanly. The store may also just be dropped, or the process killed.
    async fn close(&self);
}

/// A webhook as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub webhook: String,
    pub record: Record,
    /// When the record was last committed, by the machine's boot clock: for credit across a restart of the process.
    pub stamp: Stamp,
    /// Small facts beside the protocol (next due time, last snapshot of the webhook, counters), by name.
    pub memos: Vec<(String, serde_json::Value)>,
}

/// A reading of CLOCK_BOOTTIME, comparable only within one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub boot_id: String,
    pub boottime_ms: u64,
}

/// What one commit writes.
#[derive(Clone)]
pub struct Batch {
    pub at: UnixMillis,
    pub stamp: Stamp,
    pub changes: Vec<Change>,
}

/// What one commit writes for one webhook. Everything is optional.
#[derive(Clone, Default)]
pub struct Change {
    pub webhook: String,
    /// The new record. Its `seq` must be greater than the stored one's, or the commit is refused with
    /// [`StoreError::Conflict`]; the boot stamp of the batch is stored with it.
    pub record: Option<Record>,
    /// New secrets. A kid that is there already with other bytes is refused; with any bytes of the same kid and the same
    /// call repeated it is left as it is.
    pub secrets: Vec<StoredSecret>,
    pub journal: Vec<NewLine>,
    /// Appended to the event log; see [`LOG_KEPT`].
    pub events: Vec<Entry>,
    /// Inserted, or the outcome filled in, by number.
    pub attempts: Vec<Attempt>,
    /// Inserted, unless the same (kid, body) is there.
    pub evidence: Vec<Evidence>,
    pub probes: Vec<Probe>,
    /// Probes under any other key, and those under a random one, are forgotten: a body that only a retired key signed can be no
    /// evidence any more. A long drain is full of looks, and each of them is a row.
    pub probes_kept: Option<KidSet>,
    /// Replaced by name; `null` deletes.
    pub memos: Vec<(String, serde_json::Value)>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret {
    pub kid: Kid,
    pub sealed: Sealed,
    pub origin: Origin,
    pub created: UnixMillis,
}

/// Where a secret came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Generated,
    Adopted,
    /// Found in the keystore, put there by somebody else. Never the target of a PATCH.
    Keystore,
}

/// A line to append to the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLine {
    pub rotation: u64,
    pub seq: u64,
    /// `schedule`, `operator root`, `daemon`.
    pub actor: String,
    pub note: Note,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    pub at: UnixMillis,
    pub rotation: u64,
    pub seq: u64,
    pub actor: String,
    pub note: Note,
}

/// The newest entries of the event log that are kept, with what is before them back to a start.
pub const LOG_KEPT: u64 = 5_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    pub record: Record,
    /// Oldest first.
    pub entries: Vec<Logged>,
}

/// An entry as it lies in the store. What it says is not looked at here: an older hookturn may have written it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Counted from one, per webhook, and never again.
    pub number: u64,
    pub at: UnixMillis,
    pub entry: serde_json::Value,
}

/// One PATCH request: the intent, and what is known of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub number: u64,
    pub rotation: u64,
    pub kid: Kid,
    pub intent_at: UnixMillis,
    pub ended_at: Option<UnixMillis>,
    /// One line for a person: `200 in 41 ms, request id abc`, `no answer within 10 s`.
    pub outcome: Option<String>,
}

/// A delivery that counted. Never the body: `body` is a keyed hash of its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub kid: Kid,
    pub body: String,
    pub at: UnixMillis,
    /// `report`, `keystore`, `tap`.
    pub door: String,
    pub accepted: Option<bool>,
    /// What else is known, for `explain`: header name, prefix, user agent, address, event, replica.
    pub detail: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub body: String,
    pub kid: Option<Kid>,
    pub replica: String,
    pub at: UnixMillis,
}

/// Something about a store's surroundings that `check` should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// hookturn cannot keep its promises there.
    pub fatal: bool,
    pub text: String,
}

/// What went wrong at the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{place} is in use by {holder}")]
    Held { place: String, holder: String },
    #[error("{place} was written by a newer hookturn (schema {found}; this one knows {known}): install that version or newer")]
    TooNew { place: String, found: i64, known: i64 },
    #[error("{place} is damaged: {reason}")]
    Damaged { place: String, reason: String },
    #[error("{place}: no space left on the device: free some")]
    Full { place: String },
    #[error("{place}: {webhook}: a commit with seq {offered} where {stored} is stored already")]
    Conflict { place: String, webhook: String, offered: u64, stored: u64 },
    /// Tried again it would be refused again: the process that offers it knows something that is not so. The next process goes
    /// on from what is stored.
    #[error("{place}: a commit contradicts what is stored: {reason}; nothing of it was written")]
    Contradiction { place: String, reason: String },
    #[error("{place}: another process took over (epoch {found}, ours {ours})")]
    Fenced { place: String, found: u64, ours: u64 },
    #[error("{place}: {action}: {reason}")]
    Failed { place: String, action: &'static str, reason: String },
}

impl StoreError {
    /// Whether the same commit may be taken later: the disk is full, busy or away. What is refused for what it says is not.
    pub fn may_pass(&self) -> bool {
        matches!(self, StoreError::Full { .. } | StoreError::Failed { .. } | StoreError::Held { .. })
    }
}

/// Why a batch is refused that has other bytes for a secret: one of the two would be lost.
fn other_secret(webhook: &str, kid: Kid) -> String {
    format!("{webhook}: the secret {kid} is stored already with other bytes")
}

/// Why a batch is refused that gives an attempt another secret: which secrets may still be applied is read from it.
fn other_attempt(webhook: &str, number: u64) -> String {
    format!("{webhook}: attempt {number} is stored already with another secret")
}
