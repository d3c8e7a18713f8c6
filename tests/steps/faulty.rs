//! Everything that a step calls, counted; and one call that goes wrong.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hookturn::{
    dialnexa::{Line, PatchReport, Provider, ProviderError, Update, Webhook},
    evidence::{Courier, PlannedRequest},
    keystore::{Contents, Finding, Keystore, KeystoreError},
    rotation::{Effect, PatchAnswer},
    secret::Secret,
    store::{Attempt, Batch, EventLog, Evidence, JournalLine, Probe, Store, StoreError, Stored, StoredSecret},
};
use tokio::sync::Notify;

/// One call of a step to something outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    StoreRead,
    StoreCommit,
    KeystoreRead,
    KeystoreWrite,
    KeystoreReload,
    ReplicaAsk,
    ProviderGet,
    ProviderConnect,
    LinePatch,
}

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing happens, and an error says so.
    Refused,
    /// It takes place, and its answer is lost. A commit is never like that to a process that lives on: it dies instead.
    AnswerLost,
    /// It takes place twice. Not for a commit, whose seq must rise.
    Twice,
    /// It takes place, and the process dies.
    Dies,
}

impl Mode {
    pub const ALL: [Mode; 4] = [Mode::Refused, Mode::AnswerLost, Mode::Twice, Mode::Dies];
}

/// The calls that an effect makes. A new effect does not compile before it stands here, and fails before its calls are seen.
pub fn calls_of(effect: &Effect) -> &'static [Call] {
    match effect {
        Effect::WriteKeystore { .. } => &[Call::KeystoreRead, Call::KeystoreWrite, Call::KeystoreReload],
        Effect::ReadKeystore { .. } => &[Call::KeystoreRead],
        Effect::AskReplicas { .. } => &[Call::ReplicaAsk, Call::StoreCommit],
        Effect::InspectWebhook { .. } => &[Call::ProviderGet],
        Effect::Connect { .. } => &[Call::ProviderConnect],
        Effect::SendPatch { .. } => &[Call::LinePatch],
    }
}

/// Counts the calls, and knows which one goes wrong. Clones share it.
#[derive(Clone, Default)]
pub struct Plan {
    state: Arc<Mutex<State>>,
    pub died: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// The number of the call that goes wrong, counted from one, and how.
    wrong: Option<(usize, Mode)>,
    counting: bool,
    calls: Vec<Call>,
    dead: bool,
    broken: Option<&'static str>,
}

impl Plan {
    /// Counts from now on.
    pub fn begin(&self, wrong: Option<(usize, Mode)>) {
        *self.lock() = State { wrong, counting: true, ..State::default() };
    }

    pub fn has_begun(&self) -> bool {
        self.lock().counting
    }

    /// Every call since, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The call that was to go wrong, if there were so many.
    pub fn went_wrong(&self) -> Option<Call> {
        let state = self.lock();
        state.wrong.and_then(|(at, _)| state.calls.get(at - 1).copied())
    }

    /// Whether the process died since this was asked last.
    pub fn take_death(&self) -> bool {
        std::mem::take(&mut self.lock().dead)
    }

    fn break_promise(&self, promise: &'static str) {
        self.lock().broken = Some(promise);
    }

    /// What must never be, and was.
    pub fn broken_promise(&self) -> Option<&'static str> {
        self.lock().broken
    }

    fn next(&self, call: Call) -> Option<Mode> {
        let mut state = self.lock();
        if !state.counting {
            return None;
        }
        state.calls.push(call);
        let (number, mode) = state.wrong?;
        (state.calls.len() == number).then_some(mode)
    }

    fn die(&self) {
        self.lock().dead = true;
        self.died.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `$work`, or what the plan says.
macro_rules! planned {
    ($plan:expr, $call:expr, $work:expr, $error:expr) => {
        match $plan.next($call) {
            None => $work,
            Some(Mode::Refused) => $error,
            Some(Mode::AnswerLost) => {
                let _ = $work;
                $error
            }
            Some(Mode::Twice) => {
                let _ = $work;
                $work
            }
            Some(Mode::Dies) => {
                let _ = $work;
                $plan.die();
                pending().await
            }
        }
    };
}

/// Something with a plan around it.
pub struct Faulty<T> {
    pub inner: T,
    pub plan: Plan,
}

/// What a keystore was made to hold is looked at after each write.
pub struct FaultyKeystore {
    pub inner: Arc<dyn Keystore>,
    pub plan: Plan,
    pub witness: Arc<dyn Witness>,
}

/// Who knows what the keystore must hold.
#[async_trait]
pub trait Witness: Send + Sync {
    /// What DialNexa signs with is in the keystore.
    async fn live_key_is_there(&self) -> bool;
}

impl FaultyKeystore {
    fn error(&self, action: &'static str) -> KeystoreError {
        KeystoreError::Failed { place: self.place(), action, reason: "a fault of the test".to_owned() }
    }
}

#[async_trait]
impl Keystore for FaultyKeystore {
    fn slots(&self) -> Option<u8> {
        self.inner.slots()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        planned!(self.plan, Call::KeystoreRead, self.inner.read().await, Err(self.error("read")))
    }

    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        planned!(
            self.plan,
            Call::KeystoreWrite,
            {
                let written = self.inner.write(expect, next).await;
                if !self.witness.live_key_is_there().await {
                    self.plan.break_promise("a write took a live key out of the keystore");
                }
                written
            },
            Err(self.error("write"))
        )
    }

    async fn reload(&self) -> Result<(), KeystoreError> {
        planned!(self.plan, Call::KeystoreReload, self.inner.reload().await, Err(self.error("reload")))
    }

    async fn inspect(&self) -> Vec<Finding> {
        self.inner.inspect().await
    }
}

fn unreachable() -> ProviderError {
    ProviderError::Unreachable("a fault of the test".to_owned())
}

#[async_trait]
impl<T: Provider> Provider for Faulty<Arc<T>> {
    async fn get(&self, id: &str) -> Result<Webhook, ProviderError> {
        planned!(self.plan, Call::ProviderGet, self.inner.get(id).await, Err(unreachable()))
    }

    async fn list(&self) -> Result<Vec<Webhook>, ProviderError> {
        self.inner.list().await
    }

    async fn update(&self, id: &str, update: &Update) -> Result<Webhook, ProviderError> {
        self.inner.update(id, update).await
    }

    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError> {
        planned!(self.plan, Call::ProviderConnect, self.line().await, Err(unreachable()))
    }
}

impl<T: Provider> Faulty<Arc<T>> {
    /// Two lines: a request that takes place twice arrives over one that nobody has closed.
    async fn line(&self) -> Result<Box<dyn Line>, ProviderError> {
        let lines = [self.inner.connect().await?, self.inner.connect().await?];
        Ok(Box::new(Faulty { inner: lines, plan: self.plan.clone() }))
    }
}

#[async_trait]
impl Line for Faulty<[Box<dyn Line>; 2]> {
    async fn patch_secret(self: Box<Self>, id: &str, secret: &Secret, deadline: Duration) -> PatchReport {
        let Faulty { inner, plan } = *self;
        let mut lines = inner.into_iter();
        let report = || PatchReport { answer: PatchAnswer::Ambiguous { wait: 0 }, text: "a fault of the test".to_owned() };
        planned!(
            plan,
            Call::LinePatch,
            match lines.next() {
                Some(line) => line.patch_secret(id, secret, deadline).await,
                None => report(),
            },
            report()
        )
    }
}

#[async_trait]
impl<T: Courier> Courier for Faulty<Arc<T>> {
    async fn post(&self, url: &str, request: PlannedRequest) -> Result<u16, &'static str> {
        let again = || PlannedRequest {
            body: request.body.clone(),
            sha256: request.sha256,
            signature: request.signature.clone(),
            role: request.role,
            kid: request.kid,
        };
        planned!(self.plan, Call::ReplicaAsk, self.inner.post(url, again()).await, Err("a fault of the test"))
    }
}

impl Faulty<Arc<dyn Store>> {
    fn error(&self, action: &'static str) -> StoreError {
        StoreError::Failed { place: self.place(), action, reason: "a fault of the test".to_owned() }
    }

    /// What a commit can do. See [`Mode`].
    async fn commit_once(&self, batch: Batch) -> Result<(), StoreError> {
        match self.plan.next(Call::StoreCommit) {
            None | Some(Mode::Twice) => self.inner.commit(batch).await,
            Some(Mode::Refused) => Err(self.error("commit")),
            Some(Mode::AnswerLost | Mode::Dies) => {
                let _ = self.inner.commit(batch).await;
                self.plan.die();
                pending().await
            }
        }
    }
}

#[async_trait]
impl Store for Faulty<Arc<dyn Store>> {
    fn id(&self) -> String {
        self.inner.id()
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    async fn webhooks(&self) -> Result<Vec<Stored>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.webhooks().await, Err(self.error("read")))
    }

    async fn webhook(&self, name: &str) -> Result<Option<Stored>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.webhook(name).await, Err(self.error("read")))
    }

    async fn secrets(&self, webhook: &str) -> Result<Vec<StoredSecret>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.secrets(webhook).await, Err(self.error("read")))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.commit_once(batch).await
    }

    async fn journal(&self, webhook: &str, rotation: Option<u64>, limit: u32) -> Result<Vec<JournalLine>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.journal(webhook, rotation, limit).await, Err(self.error("read")))
    }

    async fn attempts(&self, webhook: &str, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.attempts(webhook, limit).await, Err(self.error("read")))
    }

    async fn evidence(&self, webhook: &str, limit: u32) -> Result<Vec<Evidence>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.evidence(webhook, limit).await, Err(self.error("read")))
    }

    async fn event_log(&self, webhook: &str) -> Result<Option<EventLog>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.event_log(webhook).await, Err(self.error("read")))
    }

    async fn probes(&self, webhook: &str) -> Result<Vec<Probe>, StoreError> {
        planned!(self.plan, Call::StoreRead, self.inner.probes(webhook).await, Err(self.error("read")))
    }

    fn short_of_space(&self) -> bool {
        self.inner.short_of_space()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
