//! A disk that fails, stalls, and in a crash loses or keeps what was not synced yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hookturn::store::{
    Attempt, Batch, EventLog, Evidence, JournalLine, Memory, Probe, Snapshot, Store, StoreError, Stored, StoredSecret,
};

use super::{dice::Dice, life::Life, setup::Fault, time::sleep, world::World};

/// The disk under all processes.
pub struct Disk {
    memory: Arc<Memory>,
    /// Written and not synced, or failed: after a crash it is there as a whole, or torn and therefore not.
    limbo: Mutex<Option<Limbo>>,
}

struct Limbo {
    memory: Arc<Memory>,
    batch: Arc<Batch>,
    watched: u64,
}

impl Disk {
    pub fn new() -> Disk {
        Disk { memory: Arc::new(Memory::new()), limbo: Mutex::default() }
    }

    pub fn snapshot(&self) -> Snapshot {
        self.memory.snapshot()
    }

    pub fn restore(&self, snapshot: &Snapshot) {
        *self.limbo() = None;
        self.memory.restore(snapshot);
    }

    /// What is on the disk of a webhook right now.
    pub async fn stored(&self, name: &str) -> Option<Stored> {
        self.memory.webhook(name).await.ok().flatten()
    }

    pub async fn secrets(&self, name: &str) -> Vec<StoredSecret> {
        self.memory.secrets(name).await.unwrap_or_default()
    }

    pub async fn journal(&self, name: &str) -> Vec<JournalLine> {
        self.memory.journal(name, None, u32::MAX).await.unwrap_or_default()
    }

    pub async fn event_log(&self, name: &str) -> Option<EventLog> {
        self.memory.event_log(name).await.ok().flatten()
    }

    /// After a crash: what was under way is decided.
    pub async fn recover(&self, world: &World, dice: &mut Dice) {
        let limbo = self.limbo().take();
        if let Some(Limbo { memory, batch, watched }) = limbo
            && dice.percent(50)
            && memory.commit((*batch).clone()).await.is_ok()
        {
            world.judge.log(|| "an unfinished commit has survived".to_owned());
            world.judge.committed(world, &batch, watched);
        }
    }

    /// Another process opens the store; earlier ones are fenced off.
    pub fn open(&self, world: &Arc<World>, life: &Arc<Life>) -> SimStore {
        SimStore { world: world.clone(), life: life.clone(), memory: Arc::new(self.memory.reopen()), offered: Mutex::default() }
    }

    /// Somebody looks at it, and takes it from nobody.
    pub fn look(&self, world: &Arc<World>, life: &Arc<Life>) -> SimStore {
        SimStore { world: world.clone(), life: life.clone(), memory: self.memory.clone(), offered: Mutex::default() }
    }

    fn limbo(&self) -> MutexGuard<'_, Option<Limbo>> {
        self.limbo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store as one process has opened it.
pub struct SimStore {
    world: Arc<World>,
    life: Arc<Life>,
    memory: Arc<Memory>,
    /// The batch that was offered last, by its stamp, and the time watched when it was offered first.
    offered: Mutex<(u64, u64)>,
}

impl SimStore {
    fn offer(&self, batch: &Batch) -> u64 {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if offered.0 != batch.stamp.boottime_ms {
            *offered = (batch.stamp.boottime_ms, self.world.judge.watched());
        }
        offered.1
    }
}

#[async_trait]
impl Store for SimStore {
    fn id(&self) -> String {
        self.memory.id()
    }

    fn epoch(&self) -> u64 {
        self.memory.epoch()
    }

    fn place(&self) -> String {
        self.memory.place()
    }

    async fn webhooks(&self) -> Result<Vec<Stored>, StoreError> {
        self.life.boundary().await;
        self.memory.webhooks().await
    }

    async fn webhook(&self, name: &str) -> Result<Option<Stored>, StoreError> {
        self.memory.webhook(name).await
    }

    async fn secrets(&self, webhook: &str) -> Result<Vec<StoredSecret>, StoreError> {
        self.life.boundary().await;
        self.memory.secrets(webhook).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut dice = self.world.dice("commit");
        self.life.boundary().await;
        let watched = self.offer(&batch);
        let batch = Arc::new(batch);
        *self.world.disk.limbo() = Some(Limbo { memory: self.memory.clone(), batch: batch.clone(), watched });
        let stalled = self.world.strikes(Fault::Stalls, 1, &mut dice);
        sleep(if stalled { dice.between(1_000, 90_000) } else { dice.between(0, 5) }).await;
        if self.life.is_dead() {
            std::future::pending::<()>().await;
        }
        if self.world.strikes(Fault::Disk, 3, &mut dice) {
            // A failed sync: the pages may reach the disk all the same, and nobody sees them unless there is a crash.
            if dice.percent(50) {
                *self.world.disk.limbo() = None;
                return Err(StoreError::Full { place: self.place() });
            }
            return Err(StoreError::Failed { place: self.place(), action: "commit", reason: "EIO".to_owned() });
        }
        if let Err(refused) = self.memory.commit((*batch).clone()).await {
            if !matches!(refused, StoreError::Fenced { .. }) {
                // The same would be offered again and again, until the next crash.
                self.world.judge.condemn(format!("a commit was refused: {refused}"));
            }
            return Err(refused);
        }
        *self.world.disk.limbo() = None;
        self.world.judge.committed(&self.world, &batch, watched);
        self.life.boundary().await;
        Ok(())
    }

    async fn journal(&self, webhook: &str, rotation: Option<u64>, limit: u32) -> Result<Vec<JournalLine>, StoreError> {
        self.memory.journal(webhook, rotation, limit).await
    }

    async fn attempts(&self, webhook: &str, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        self.memory.attempts(webhook, limit).await
    }

    async fn evidence(&self, webhook: &str, limit: u32) -> Result<Vec<Evidence>, StoreError> {
        self.life.boundary().await;
        self.memory.evidence(webhook, limit).await
    }

    async fn event_log(&self, webhook: &str) -> Result<Option<EventLog>, StoreError> {
        self.memory.event_log(webhook).await
    }

    async fn probes(&self, webhook: &str) -> Result<Vec<Probe>, StoreError> {
        self.life.boundary().await;
        self.memory.probes(webhook).await
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}
