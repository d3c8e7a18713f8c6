//! Build, bind, run, stop.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    clock::Clock,
    desk::{Entry, FrontDesk},
    hands::Hands,
    message::Message,
    notify::Bell,
    office::{Board, Local},
    request::Office,
    ward::{Facts, Ward},
    writer::Writer,
};
use crate::{
    config::{Config, Credential, CredentialError},
    dialnexa::{Client, ClientError, Provider, Settings},
    evidence::{Counters, Desk, Ledger, Limits, Prober, ProxyAnswers, StatusCounts, bind_answers},
    keystore::{self, status::read_status},
    rotation::{Event, Record, Volatile},
    schedule::wake,
    secret::{BadSecret, Keyring, SealingError, SealingKey, Secret},
    steps::{Tools, Vault, push},
    store::{Anchor, AnchorState, Memory, Opening, Sqlite, Store, StoreError, Stored},
};

/// What a process is started for.
#[derive(Debug, Clone)]
pub struct Options {
    /// For the lock, such as `hookturn run`.
    pub purpose: String,
    /// Only these webhooks; `None` is all of them.
    pub only: Option<Vec<String>>,
    /// Open the doors of `[listen] deliveries`.
    pub doors: bool,
    /// Begin rotations that are due.
    pub schedule: bool,
    /// Look only: nothing is written, sent or begun.
    pub read_only: bool,
}

/// A daemon at work, in this process.
pub struct Daemon {
    office: Arc<Local>,
    shutdown: CancellationToken,
    writer: std::sync::Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    stopped: CancellationToken,
    tasks: TaskTracker,
    doors: Option<std::net::SocketAddr>,
}

/// Why a daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{what}: {source}")]
    Credential { what: &'static str, source: CredentialError },
    #[error("{what}: {source}")]
    BadCredential { what: &'static str, source: BadSecret },
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the doors at {address} cannot be opened: {reason}")]
    Doors { address: std::net::SocketAddr, reason: String },
    #[error("no webhook is called {0:?}")]
    NoSuchWebhook(String),
    #[error("{0}")]
    Setup(String),
}

impl StartError {
    /// The exit code of a command that ends with it.
    pub fn exit(&self) -> u8 {
        match self {
            StartError::Credential { .. } | StartError::BadCredential { .. } | StartError::Client(_) => 78,
            StartError::Sealing(SealingError::BadKey) => 78,
            StartError::Sealing(_) => 1,
            StartError::Store(StoreError::Held { .. }) => 75,
            StartError::Store(StoreError::TooNew { .. } | StoreError::Damaged { .. }) => 1,
            StartError::Store(_) | StartError::Doors { .. } => 69,
            StartError::NoSuchWebhook(_) => 64,
            StartError::Setup(_) => 70,
        }
    }

    /// A credential of the unit is missing in this environment.
    pub fn lacks_credentials(&self) -> bool {
        matches!(self, StartError::Credential { .. })
    }
}

const INBOX: usize = 4096;
/// How long a store that another process holds is waited for.
const HELD_AT_MOST_MS: u64 = 2_000;
/// The writer naps for five seconds at the most.
const SILENT_AT_MOST_MS: u64 = 20_000;

impl Daemon {
    /// Takes the store, reads what was, opens the doors, and begins where the last process stopped.
    pub async fn start(config: Config, options: Options) -> Result<Daemon, StartError> {
        let clock = Clock::system();
        let selected = select(&config, options.only.as_deref())?;
        let sealing = Arc::new(SealingKey::parse(&read("store.sealing_key", &config.store.sealing_key)?)?);
        let provider = provider(&config)?;
        let store = open_store(&config, &options, &clock).await?;
        let stored = store.webhooks().await?;
        let prober = Arc::new(Prober::new(Duration::from_secs(5)).map_err(|error| StartError::Setup(error.to_string()))?);

        let mut tools = Vec::new();
        for webhook in &selected {
            tools.push(Arc::new(open_tools(webhook, &provider, &prober, &sealing, store.as_ref()).await?));
        }
        let listener = match (options.doors, config.listen.deliveries) {
            (true, Some(address)) => Some(bind(address).await?),
            _ => None,
        };
        let (inbox, messages) = mpsc::channel(INBOX);
        let hands = Hands::new(inbox.clone(), clock.clone());
        let desk = Arc::new(front_desk(&tools, inbox.clone())?);
        let board = Arc::new(Board::default());
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (anchor, restored) = anchor(&config, store.as_ref(), &stored, options.read_only)?;
        let mut wards = Vec::new();
        for (place, tools) in tools.iter().enumerate() {
            let identity = config.identity(&tools.config);
            let before = stored.iter().find(|stored| stored.webhook == tools.config.name);
            let restored = restored.contains(&tools.config.name);
            wards.push(open_ward(place, tools.clone(), identity, before, restored, store.as_ref(), &clock).await?);
        }
        let office = Arc::new(Local {
            tools,
            board: board.clone(),
            store: store.clone(),
            inbox: inbox.clone(),
            clock: clock.clone(),
            home: home(&config),
        });
        board.beat(&clock);
        let doors = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let bell = Bell { notify: config.notify.clone().map(Arc::new), tasks: tasks.clone() };
        let doors_open = listener.is_some();
        let writer = Writer {
            wards,
            store,
            anchor,
            inbox: messages,
            hands,
            desk: desk.clone(),
            board,
            bell,
            clock: clock.clone(),
            doors_open,
            shutdown: shutdown.clone(),
            replies: Vec::new(),
            acknowledgements: Vec::new(),
            read_only: options.read_only,
            schedule: options.schedule.then(|| (office.clone(), tasks.clone())),
        };
        if let Some(listener) = listener {
            let limits = Limits {
                header_timeout: config.listen.header_timeout,
                body_timeout: config.listen.body_timeout,
                ..Limits::new(config.listen.max_body)
            };
            let answers = open_answers(&office.tools, &desk, &tasks, &shutdown);
            tasks.spawn(crate::evidence::serve(listener, limits, desk, answers, shutdown.clone()));
        }
        for (place, tools) in office.tools.iter().enumerate() {
            if let Some(dir) = push::status_directory(tools) {
                tasks.spawn(watch_status(place, dir, inbox.clone(), shutdown.clone()));
            }
        }
        if options.schedule {
            tasks.spawn(alarm(inbox.clone(), shutdown.clone()));
        }
        let stopped = CancellationToken::new();
        let ended = stopped.clone();
        let handle = tokio::spawn(async move {
            let result = writer.run().await;
            if let Err(error) = &result {
                tracing::error!("{error}");
            }
            ended.cancel();
            result
        });
        // The first statuses are there before anybody can ask.
        while office.board.statuses().len() < office.tools.len() && !stopped.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Daemon { office, shutdown, writer: std::sync::Mutex::new(Some(handle)), stopped, tasks, doors })
    }

    pub fn office(&self) -> Arc<dyn Office> {
        self.office.clone()
    }

    /// Whether the writer loop comes round; what a watchdog should ask.
    pub fn pulse(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let office = self.office.clone();
        move || office.board.silent_for(&office.clock) < SILENT_AT_MOST_MS
    }

    /// Where the doors are open.
    pub fn doors(&self) -> Option<std::net::SocketAddr> {
        self.doors
    }

    /// Resolves when the writer has stopped by itself: another process took over, or the store is damaged.
    pub async fn wait(&self) {
        self.stopped.cancelled().await;
    }

    /// Lets a PATCH under way finish, writes down what is known, and closes the store.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let handle = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(handle) = handle {
            let _ = handle.await;
        }
        self.tasks.close();
        // Doors drain on their own deadline; nothing durable depends on them.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
    }
}

/// The store's path, the same for every process that uses it.
pub fn home(config: &Config) -> String {
    std::path::absolute(&config.store.path).unwrap_or_else(|_| config.store.path.clone()).display().to_string()
}

fn select(config: &Config, only: Option<&[String]>) -> Result<Vec<crate::config::Webhook>, StartError> {
    let Some(only) = only else { return Ok(config.webhooks.clone()) };
    only.iter().map(|name| config.webhook(name).cloned().ok_or_else(|| StartError::NoSuchWebhook(name.clone()))).collect()
}

fn read(what: &'static str, credential: &Credential) -> Result<zeroize::Zeroizing<String>, StartError> {
    credential.read().map_err(|source| StartError::Credential { what, source })
}

fn secret(what: &'static str, credential: &Credential) -> Result<Secret, StartError> {
    Secret::parse(read(what, credential)?.trim_end()).map_err(|source| StartError::BadCredential { what, source })
}

/// The provider that a configuration names.
pub fn provider(config: &Config) -> Result<Arc<dyn Provider>, StartError> {
    let settings = Settings {
        base_url: config.dialnexa.base_url.clone(),
        api_key: secret("dialnexa.api_key", &config.dialnexa.api_key)?,
        ca_file: config.dialnexa.ca_file.clone(),
        timeout: Duration::from_secs(10),
    };
    Ok(Arc::new(Client::new(settings)?))
}

/// The store, or for those who only look a view of it that takes no lock. A command that is just ending is waited for.
async fn open_store(config: &Config, options: &Options, clock: &Clock) -> Result<Arc<dyn Store>, StartError> {
    let path = &config.store.path;
    if options.read_only {
        return Ok(match Sqlite::look(path).await? {
            Some(store) => Arc::new(store),
            None => Arc::new(Memory::new()),
        });
    }
    let began = clock.boottime_ms();
    loop {
        let opening = Opening { command: options.purpose.clone(), at: clock.unix_millis() };
        match Sqlite::open(path, opening).await {
            Err(StoreError::Held { .. }) if clock.boottime_ms() - began < HELD_AT_MOST_MS => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            opened => return Ok(Arc::new(opened?)),
        }
    }
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Doors { address, reason: error.to_string() })
}

async fn open_tools(
    webhook: &crate::config::Webhook,
    provider: &Arc<dyn Provider>,
    prober: &Arc<Prober>,
    sealing: &Arc<SealingKey>,
    store: &dyn Store,
) -> Result<Tools, StartError> {
    let vault = Vault::default();
    for stored in store.secrets(&webhook.name).await? {
        vault.insert(stored.kid, sealing.open(&webhook.name, stored.kid, &stored.sealed)?, stored.origin);
    }
    let mut ledger = Ledger::new(*sealing.derive("body digests"), REMEMBERED_BODIES);
    for probe in store.probes(&webhook.name).await? {
        ledger.note_probe(probe.body);
    }
    for evidence in store.evidence(&webhook.name, 10_000).await? {
        ledger.note(evidence.kid, &evidence.body);
    }
    Ok(Tools {
        config: webhook.clone(),
        provider: provider.clone(),
        keystore: keystore::build(&webhook.keystore, &webhook.name, &webhook.id),
        prober: prober.clone(),
        vault,
        sealing: sealing.clone(),
        ledger: std::sync::Mutex::new(ledger),
        learned: std::sync::Mutex::default(),
    })
}

/// Bodies remembered per webhook, to tell a new one from a repeated one.
const REMEMBERED_BODIES: usize = 20_000;

fn front_desk(tools: &[Arc<Tools>], inbox: mpsc::Sender<Message>) -> Result<FrontDesk, StartError> {
    let mut entries = Vec::new();
    for tools in tools {
        let verify = &tools.config.verify;
        let token = |what, credential: &Option<Credential>| credential.as_ref().map(|c| secret(what, c)).transpose();
        let entry = Entry {
            keyring: ArcSwap::from_pointee(Keyring::new(Vec::new())),
            report_token: token("verify.report_token", &verify.report_token)?,
            tap_token: token("verify.tap_token", &verify.tap_token)?,
        };
        entries.push((tools.config.name.clone(), entry));
    }
    Ok(FrontDesk::new(entries, inbox))
}

/// Listens to what proxies log. Without a socket the tap still sees who signs, so that is no reason not to start.
fn open_answers(tools: &[Arc<Tools>], desk: &Arc<FrontDesk>, tasks: &TaskTracker, shutdown: &CancellationToken) -> ProxyAnswers {
    let told: Vec<&Arc<Tools>> = tools.iter().filter(|tools| tools.config.tap_answers.is_some()).collect();
    let sockets = match bind_answers(told.iter().filter_map(|tools| tools.config.tap_answers.as_ref())) {
        Ok(sockets) => sockets,
        Err(error) => {
            tracing::error!("tap.answers: {error}; going on without the consumer's answers");
            return ProxyAnswers::default();
        }
    };
    let answers = ProxyAnswers::new(told.iter().map(|tools| tools.config.name.clone()));
    for socket in sockets {
        let desk: Arc<dyn Desk> = desk.clone();
        tasks.spawn(answers.clone().listen(socket, desk, shutdown.clone()));
    }
    answers
}

/// The witness of what was done, and the webhooks whose record is older than that.
fn anchor(config: &Config, store: &dyn Store, stored: &[Stored], read_only: bool) -> Result<(Anchor, Vec<String>), StartError> {
    let path: &Path = &config.store.anchor;
    let all = || stored.iter().map(|stored| stored.webhook.clone()).collect::<Vec<_>>();
    match Anchor::load(path, &store.id()) {
        AnchorState::Read(anchor) => {
            let older = stored.iter().filter(|stored| anchor.older_than(stored)).map(|stored| stored.webhook.clone()).collect();
            Ok((anchor, older))
        }
        AnchorState::Missing if stored.is_empty() => {
            let mut anchor = Anchor::at(path, &store.id());
            if !read_only {
                anchor.advance(&[])?;
            }
            Ok((anchor, Vec::new()))
        }
        AnchorState::Missing => {
            tracing::warn!("{} is missing: the store may be an older one", path.display());
            Ok((Anchor::at(path, &store.id()), all()))
        }
        AnchorState::Unreadable { reason } => {
            tracing::warn!("{reason}: the store may be an older one");
            Ok((Anchor::at(path, &store.id()), all()))
        }
    }
}

async fn open_ward(
    place: usize,
    tools: Arc<Tools>,
    identity: u64,
    before: Option<&Stored>,
    restored: bool,
    store: &dyn Store,
    clock: &Clock,
) -> Result<Ward, StartError> {
    let policy = tools.config.policy;
    let record = before.map_or_else(|| Record::unadopted(policy, identity), |stored| stored.record.clone());
    let dark = before.map_or(0, |stored| u64::try_from(clock.since(&stored.stamp).as_millis()).unwrap_or(0));
    let memo =
        |name: &str| before.and_then(|stored| stored.memos.iter().find(|(known, _)| known == name)).map(|(_, v)| v.clone());
    let facts: Facts = memo("facts").and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    let counters: Option<Counters> = memo("counters").and_then(|value| serde_json::from_value(value).ok());
    let mut probes_sent = BTreeMap::new();
    for kid in store.probes(&tools.config.name).await?.into_iter().filter_map(|probe| probe.kid) {
        *probes_sent.entry(kid).or_default() += 1;
    }
    let ahead = keystore_ahead(&tools, &record).await;
    let mut ward = Ward {
        place,
        record,
        volatile: Volatile::default(),
        last_tick: clock.boottime_ms(),
        replicas: Vec::new(),
        words: BTreeMap::new(),
        facts,
        counters_begun: counters.is_some(),
        counters: counters.unwrap_or_default(),
        probes_sent,
        change: Default::default(),
        effects: Vec::new(),
        notes: Vec::new(),
        fresh: Vec::new(),
        touched: true,
        dirty: before.is_none(),
        published: None,
        plan: memo("plan").and_then(|value| serde_json::from_value(value).ok()),
        schedule_retry: 0,
        tools,
    };
    let event = Event::Boot { policy, identity, restored: restored || ahead, dark };
    let taken = ward.take(&event, "daemon", clock, false);
    debug_assert!(taken.is_ok(), "a boot is never refused");
    let probes = ward.tools.config.preflight.probe.clone();
    let replicas = probes.into_iter().map(|url| ward.replica_id(push::Replica::Probe { url })).collect();
    let taken = ward.take(&Event::Roster { replicas }, "daemon", clock, false);
    debug_assert!(taken.is_ok(), "a roster is never refused");
    Ok(ward)
}

/// The keystore is the second witness: a generation that the store has never heard of was written by a forgotten future.
async fn keystore_ahead(tools: &Tools, record: &Record) -> bool {
    if record.seq == 0 || record.generation == 0 {
        return false;
    }
    match tokio::time::timeout(Duration::from_secs(2), tools.keystore.read()).await {
        Ok(Ok(Some(contents))) => contents.generation > record.generation,
        _ => false,
    }
}

/// Reads the replicas' status files about once a second.
async fn watch_status(place: usize, dir: std::path::PathBuf, inbox: mpsc::Sender<Message>, shutdown: CancellationToken) {
    let mut told = None;
    loop {
        let report = read_status(&dir).await;
        let files: Vec<(StatusCounts, u64)> = report
            .files
            .into_iter()
            .map(|file| {
                let keys = file.keys.iter().map(|key| (key.kid, key.verified)).collect();
                let started_at = file.started_at.to_rfc3339();
                (StatusCounts { replica: file.replica, started_at, keys }, file.generation)
            })
            .collect();
        if told.as_ref() != Some(&files) {
            told = Some(files.clone());
            if !files.is_empty() && inbox.send(Message::StatusFiles { webhook: place, files }).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// Wakes the planner: the cron scheduler's tick, and a plain timer as a belt.
async fn alarm(inbox: mpsc::Sender<Message>, shutdown: CancellationToken) {
    let ring = inbox.clone();
    let wake_up = wake("*/5 * * * * *", move || {
        // A full inbox means that the writer is awake anyway.
        let _ = ring.try_send(Message::Wake);
    })
    .await;
    if let Err(error) = &wake_up {
        tracing::warn!("the wake-up clock does not start ({error}); a plain timer does its work");
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(Duration::from_secs(if wake_up.is_ok() { 60 } else { 5 })) => {
                if inbox.send(Message::Wake).await.is_err() {
                    break;
                }
            }
        }
    }
    if let Ok(wake_up) = wake_up {
        wake_up.shutdown().await;
    }
}
