use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hookturn::{
    rotation::{Entry, Event, Millis, Note, OnReject, Op, Policy, Record, Volatile},
    secret::{Kid, Sealed},
    store::{
        Attempt, Batch, Change, Evidence, Memory, NewLine, Opening, Origin, Probe, Sqlite, Stamp, Store, StoreError, StoredSecret,
    },
};

/// Somewhere a store lies, to be opened again and again.
#[async_trait]
pub trait Place: Sync {
    /// The one before must have been closed.
    async fn open(&self) -> Box<dyn Store>;
    /// Opens although the one before still runs.
    async fn take_over(&self) -> Box<dyn Store>;
}

pub struct InMemory(Memory);

impl InMemory {
    pub fn new() -> InMemory {
        InMemory(Memory::default())
    }
}

#[async_trait]
impl Place for InMemory {
    async fn open(&self) -> Box<dyn Store> {
        Box::new(self.0.reopen())
    }

    async fn take_over(&self) -> Box<dyn Store> {
        self.open().await
    }
}

pub struct InFile {
    pub dir: tempfile::TempDir,
}

impl InFile {
    pub fn new() -> InFile {
        InFile { dir: tempfile::tempdir().expect("a directory") }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("hookturn.db")
    }

    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("hookturn.db{suffix}"))
    }

    pub async fn try_open(&self) -> Result<Sqlite, StoreError> {
        try_open(&self.path()).await
    }

    pub async fn sqlite(&self) -> Sqlite {
        self.try_open().await.expect("open")
    }
}

#[async_trait]
impl Place for InFile {
    async fn open(&self) -> Box<dyn Store> {
        Box::new(self.sqlite().await)
    }

    /// Somebody has removed the lock file: nothing else lets two processes in.
    async fn take_over(&self) -> Box<dyn Store> {
        std::fs::remove_file(self.beside(".lock")).expect("remove the lock");
        self.open().await
    }
}

pub async fn try_open(path: &Path) -> Result<Sqlite, StoreError> {
    Sqlite::open(path, Opening { command: "hookturn run".to_owned(), at: 1_790_000_000_000 }).await
}

pub fn kid(text: &str) -> Kid {
    Kid::parse(text).expect("kid")
}

pub fn record(seq: u64) -> Record {
    const HOUR: Millis = 3_600_000;
    let policy = Policy {
        quarantine: HOUR,
        drain: 24 * HOUR,
        wait: 5_000,
        repeat_min: 5_000,
        repeat_max: 6 * HOUR,
        min_deliveries: 1,
        min_span: 0,
        slots: None,
        on_reject: OnReject::SwitchBack,
        unproven: false,
    };
    Record { seq, ..Record::unadopted(policy, u64::MAX - 7) }
}

pub fn stamp(boottime_ms: u64) -> Stamp {
    Stamp { boot_id: "9f0c".to_owned(), boottime_ms }
}

pub fn batch(changes: Vec<Change>) -> Batch {
    Batch { at: 1_790_000_000_123, stamp: stamp(41), changes }
}

pub fn one(change: Change) -> Batch {
    batch(vec![change])
}

pub fn change(webhook: &str) -> Change {
    Change { webhook: webhook.to_owned(), ..Change::default() }
}

pub fn with_record(webhook: &str, seq: u64) -> Change {
    Change { record: Some(record(seq)), ..change(webhook) }
}

pub fn secret(name: &str, bytes: &[u8]) -> StoredSecret {
    StoredSecret { kid: kid(name), sealed: Sealed(bytes.to_vec()), origin: Origin::Generated, created: 7 }
}

pub fn line(rotation: u64, seq: u64) -> NewLine {
    NewLine { rotation, seq, actor: "operator root".to_owned(), note: Note::Adopted { kid: Some(kid("k_a")) } }
}

pub fn start(seq: u64) -> Entry {
    Entry::Start { record: Box::new(record(seq)), volatile: Box::new(Volatile::default()) }
}

pub fn paused(seq: u64) -> Entry {
    Entry::Took { event: Event::Op(Op::Pause), effects: Vec::new(), record: Some(Box::new(record(seq))) }
}

pub fn attempt(number: u64, name: &str) -> Attempt {
    Attempt { number, rotation: 1, kid: kid(name), intent_at: 5, ended_at: None, outcome: None }
}

pub fn evidence(name: &str, body: &str) -> Evidence {
    let detail = serde_json::json!({"replica": "a", "status": 200});
    Evidence { kid: kid(name), body: body.to_owned(), at: 9, door: "report".to_owned(), accepted: Some(true), detail }
}

pub fn probe(body: &str, name: Option<&str>) -> Probe {
    Probe { body: body.to_owned(), kid: name.map(kid), replica: "http://127.0.0.1:9000/hook".to_owned(), at: 11 }
}

pub async fn seq(store: &dyn Store, webhook: &str) -> Option<u64> {
    store.webhook(webhook).await.expect("read").map(|stored| stored.record.seq)
}
