//! The store in memory: for the simulator and for tests, with what can go wrong as a switch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Attempt, Batch, Change, EventLog, Evidence, JournalLine, LOG_KEPT, Logged, Probe, Stamp, Store, StoreError, Stored,
    StoredSecret, UnixMillis, other_attempt, other_secret,
};
use crate::{
    mutants::{self, Mutant},
    rotation::{Entry, Record},
    secret::{Kid, Sealed},
};

/// A [`Store`] as durable as the value that holds it. [`Memory::reopen`] is what a restart does.
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
    epoch: u64,
    closed: Mutex<bool>,
}

/// A copy of everything, to be put back later as a backup would be.
#[derive(Clone)]
pub struct Snapshot(BTreeMap<String, Shelf>);

#[derive(Default)]
struct Disk {
    epoch: u64,
    shelves: BTreeMap<String, Shelf>,
    failing: VecDeque<StoreError>,
    /// What lay here before each of the last commits, as many as are remembered.
    before: VecDeque<Snapshot>,
    remembered: usize,
}

/// All of one webhook.
#[derive(Clone, Default)]
struct Shelf {
    row: Option<(Record, Stamp)>,
    memos: BTreeMap<String, serde_json::Value>,
    secrets: Vec<StoredSecret>,
    journal: Vec<JournalLine>,
    events: Vec<Kept>,
    attempts: BTreeMap<u64, Attempt>,
    evidence: Vec<Evidence>,
    evidence_seen: BTreeSet<(Kid, String)>,
    probes: Vec<Probe>,
    probes_seen: BTreeSet<(String, String, Option<Kid>)>,
}

/// A line of the event log. Most of what a shelf holds, and never changed: copies of the shelf share it.
#[derive(Clone)]
struct Kept {
    number: u64,
    at: UnixMillis,
    entry: Arc<Entry>,
}

impl Memory {
    pub fn new() -> Memory {
        Memory { disk: Arc::default(), epoch: 0, closed: Mutex::new(false) }.reopen()
    }

    /// Opens the same disk again, as another process would. The older opening is fenced off.
    pub fn reopen(&self) -> Memory {
        let mut disk = self.disk();
        disk.epoch += 1;
        Memory { disk: Arc::clone(&self.disk), epoch: disk.epoch, closed: Mutex::new(false) }
    }

    /// The next commit that is not failing yet fails with this, and changes nothing.
    pub fn fail_next(&self, error: StoreError) {
        self.disk().failing.push_back(error);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.disk().shelves.clone())
    }

    /// Copies an older store back. The epoch stays: no process is restarted by it.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.disk().shelves = snapshot.0.clone();
    }

    /// Keeps what is needed to lose that many commits.
    pub fn remember(&self, commits: usize) {
        self.disk().remembered = commits;
    }

    /// Breaks the promise of durability, as a disk that lies about its syncs does: the last `commits` never were. Only as many
    /// as were remembered can be lost; says how many were.
    pub fn lose_last(&self, commits: usize) -> usize {
        let mut disk = self.disk();
        let kept = disk.before.len().saturating_sub(commits);
        let lost: Vec<Snapshot> = disk.before.drain(kept..).collect();
        if let Some(oldest) = lost.first() {
            disk.shelves = oldest.0.clone();
        }
        lost.len()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a webhook's shelf says; nothing of an unknown one.
    fn look<T: Default>(&self, webhook: &str, look: impl FnOnce(&Shelf) -> T) -> T {
        self.disk().shelves.get(webhook).map(look).unwrap_or_default()
    }

    fn refusal(&self, disk: &mut Disk, batch: &Batch) -> Result<(), StoreError> {
        if *self.closed.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(refused("the store is closed".to_owned()));
        }
        if let Some(error) = disk.failing.pop_front() {
            return Err(error);
        }
        if disk.epoch != self.epoch && !mutants::on(Mutant::FenceIgnored) {
            return Err(StoreError::Fenced { place: self.place(), found: disk.epoch, ours: self.epoch });
        }
        disk.check(batch)
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

#[async_trait]
impl Store for Memory {
    fn id(&self) -> String {
        "memory".to_owned()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn place(&self) -> String {
        PLACE.to_owned()
    }

    async fn webhooks(&self) -> Result<Vec<Stored>, StoreError> {
        Ok(self.disk().shelves.iter().filter_map(|(name, shelf)| shelf.stored(name)).collect())
    }

    async fn webhook(&self, name: &str) -> Result<Option<Stored>, StoreError> {
        Ok(self.look(name, |shelf| shelf.stored(name)))
    }

    async fn secrets(&self, webhook: &str) -> Result<Vec<StoredSecret>, StoreError> {
        Ok(self.look(webhook, |shelf| shelf.secrets.clone()))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut disk = self.disk();
        self.refusal(&mut disk, &batch)?;
        disk.note_before();
        for change in batch.changes {
            disk.shelves.entry(change.webhook.clone()).or_default().apply(change, &batch.stamp, batch.at);
        }
        Ok(())
    }

    async fn journal(&self, webhook: &str, rotation: Option<u64>, limit: u32) -> Result<Vec<JournalLine>, StoreError> {
        let wanted = |line: &&JournalLine| rotation.is_none_or(|rotation| line.rotation == rotation);
        Ok(self.look(webhook, |shelf| newest(shelf.journal.iter().filter(wanted), limit)))
    }

    async fn attempts(&self, webhook: &str, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.look(webhook, |shelf| newest(shelf.attempts.values(), limit)))
    }

    async fn evidence(&self, webhook: &str, limit: u32) -> Result<Vec<Evidence>, StoreError> {
        Ok(self.look(webhook, |shelf| newest(shelf.evidence.iter(), limit)))
    }

    async fn event_log(&self, webhook: &str) -> Result<Option<EventLog>, StoreError> {
        Ok(self.look(webhook, |shelf| {
            let (record, _) = shelf.row.clone()?;
            Some(EventLog { record, entries: shelf.events.iter().map(Kept::logged).collect() })
        }))
    }

    async fn probes(&self, webhook: &str) -> Result<Vec<Probe>, StoreError> {
        Ok(self.look(webhook, |shelf| shelf.probes.clone()))
    }

    async fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

const PLACE: &str = "memory";

impl Disk {
    /// Everything that can be refused is refused before anything is changed: that makes the commit all or nothing.
    fn check(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut seqs: HashMap<&str, u64> = HashMap::new();
        let mut sealed: HashMap<(&str, Kid), &Sealed> = HashMap::new();
        let mut kids: HashMap<(&str, u64), Kid> = HashMap::new();
        for change in &batch.changes {
            let webhook = change.webhook.as_str();
            let shelf = self.shelves.get(webhook);
            if let Some(record) = &change.record {
                let stored = seqs.get(webhook).copied().or_else(|| shelf?.row.as_ref().map(|(record, _)| record.seq));
                check_seq(webhook, record.seq, stored)?;
                seqs.insert(webhook, record.seq);
            }
            for secret in &change.secrets {
                let of_kid = |shelf: &'_ Shelf| shelf.secrets.iter().position(|s| s.kid == secret.kid);
                let stored = shelf.and_then(|shelf| of_kid(shelf).map(|at| &shelf.secrets[at].sealed));
                if *stored.unwrap_or_else(|| sealed.entry((webhook, secret.kid)).or_insert(&secret.sealed)) != secret.sealed {
                    return Err(contradiction(other_secret(webhook, secret.kid)));
                }
            }
            for attempt in &change.attempts {
                let stored = shelf.and_then(|shelf| shelf.attempts.get(&attempt.number)).map(|stored| stored.kid);
                if stored.unwrap_or_else(|| *kids.entry((webhook, attempt.number)).or_insert(attempt.kid)) != attempt.kid {
                    return Err(contradiction(other_attempt(webhook, attempt.number)));
                }
            }
        }
        Ok(())
    }

    fn note_before(&mut self) {
        if self.remembered > 0 {
            self.before.push_back(Snapshot(self.shelves.clone()));
        }
        while self.before.len() > self.remembered {
            self.before.pop_front();
        }
    }
}

fn check_seq(webhook: &str, offered: u64, stored: Option<u64>) -> Result<(), StoreError> {
    match stored {
        Some(stored) if offered <= stored => {
            Err(StoreError::Conflict { place: PLACE.to_owned(), webhook: webhook.to_owned(), offered, stored })
        }
        _ => Ok(()),
    }
}

fn contradiction(reason: String) -> StoreError {
    StoreError::Contradiction { place: PLACE.to_owned(), reason }
}

fn refused(reason: String) -> StoreError {
    StoreError::Failed { place: PLACE.to_owned(), action: "commit", reason }
}

impl Shelf {
    fn stored(&self, name: &str) -> Option<Stored> {
        let (record, stamp) = self.row.clone()?;
        let memos = self.memos.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Stored { webhook: name.to_owned(), record, stamp, memos })
    }

    fn apply(&mut self, change: Change, stamp: &Stamp, at: UnixMillis) {
        if let Some(record) = change.record {
            self.row = Some((record, stamp.clone()));
        }
        for secret in change.secrets {
            if self.secrets.iter().all(|stored| stored.kid != secret.kid) {
                self.secrets.push(secret);
            }
        }
        self.journal.extend(change.journal.into_iter().map(|line| JournalLine {
            at,
            rotation: line.rotation,
            seq: line.seq,
            actor: line.actor,
            note: line.note,
        }));
        for entry in change.events {
            self.note_event(entry, at);
        }
        for attempt in change.attempts {
            self.note_attempt(attempt);
        }
        for evidence in change.evidence {
            if self.evidence_seen.insert((evidence.kid, evidence.body.clone())) {
                self.evidence.push(evidence);
            }
        }
        for probe in change.probes {
            if self.probes_seen.insert((probe.body.clone(), probe.replica.clone(), probe.kid)) {
                self.probes.push(probe);
            }
        }
        if let Some(kept) = change.probes_kept {
            let lives = |kid: Option<Kid>| kid.is_some_and(|kid| kept.contains(kid));
            self.probes.retain(|probe| lives(probe.kid));
            self.probes_seen.retain(|(_, _, kid)| lives(*kid));
        }
        for (name, value) in change.memos {
            if value.is_null() {
                self.memos.remove(&name)
            } else {
                self.memos.insert(name, value)
            };
        }
    }

    fn note_event(&mut self, entry: Entry, at: UnixMillis) {
        let number = self.events.last().map_or(1, |last| last.number + 1);
        let starts = matches!(entry, Entry::Start { .. });
        self.events.push(Kept { number, at, entry: Arc::new(entry) });
        if starts {
            let start = |kept: &&Kept| kept.number + LOG_KEPT <= number && matches!(*kept.entry, Entry::Start { .. });
            let keep_from = self.events.iter().rev().find(start).map_or(0, |kept| kept.number);
            self.events.retain(|kept| kept.number >= keep_from);
        }
    }

    fn note_attempt(&mut self, attempt: Attempt) {
        let stored = self.attempts.entry(attempt.number).or_insert_with(|| attempt.clone());
        stored.ended_at = attempt.ended_at.or(stored.ended_at);
        stored.outcome = attempt.outcome.or_else(|| stored.outcome.take());
    }
}

impl Kept {
    fn logged(&self) -> Logged {
        Logged { number: self.number, at: self.at, entry: serde_json::to_value(&*self.entry).unwrap_or_default() }
    }
}

/// The last `limit` of them, in their order.
fn newest<'a, T: Clone + 'a>(all: impl DoubleEndedIterator<Item = &'a T>, limit: u32) -> Vec<T> {
    let mut newest: Vec<T> = all.rev().take(limit as usize).cloned().collect();
    newest.reverse();
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn commit(store: &Memory, n: i64) -> Result<(), StoreError> {
        let change = Change {
            webhook: "billing".to_owned(),
            probes: vec![Probe { body: n.to_string(), kid: None, replica: "a".to_owned(), at: n }],
            ..Change::default()
        };
        store.commit(Batch { at: n, stamp: Stamp { boot_id: "b".to_owned(), boottime_ms: 1 }, changes: vec![change] }).await
    }

    async fn probes(store: &Memory) -> usize {
        store.probes("billing").await.map_or(0, |probes| probes.len())
    }

    #[tokio::test]
    async fn a_failing_commit_fails_as_told_and_changes_nothing() {
        let store = Memory::new();
        store.fail_next(StoreError::Full { place: PLACE.to_owned() });
        assert!(matches!(commit(&store, 1).await, Err(StoreError::Full { .. })));
        assert_eq!(probes(&store).await, 0);
        assert!(commit(&store, 1).await.is_ok());
    }

    #[tokio::test]
    async fn a_snapshot_can_be_copied_back_any_time_later() {
        let store = Memory::new();
        assert!(commit(&store, 1).await.is_ok());
        let snapshot = store.snapshot();
        assert!(commit(&store, 2).await.is_ok());
        store.restore(&snapshot);
        assert_eq!(probes(&store.reopen()).await, 1);
    }

    #[tokio::test]
    async fn only_remembered_commits_can_be_lost() {
        let store = Memory::new();
        assert!(commit(&store, 1).await.is_ok());
        assert_eq!(store.lose_last(1), 0);
        store.remember(2);
        for n in 2..=5 {
            assert!(commit(&store, n).await.is_ok());
        }
        assert_eq!(store.lose_last(1), 1);
        assert_eq!(probes(&store).await, 4);
        assert_eq!(store.lose_last(9), 1);
        assert_eq!(probes(&store).await, 3);
    }
}
