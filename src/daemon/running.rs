//! Build, bind, run, stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    desk::FrontDesk,
    hands::Hands,
    members,
    message::Message,
    notify::Bell,
    office::{Board, Local},
    opening::{Shared, Witness, front_desk, judge_anchor, keystore_generations, open_tools, open_ward},
    parts::{Alarm, Parts, StartError},
    request::Office,
    writer::Writer,
};
use crate::{
    config::Config,
    evidence::{Desk, Limits, ProxyAnswers, StatusCounts, bind_answers},
    mutants::{self, Mutant},
    schedule::{WakeUp, wake},
    steps::Tools,
    store::{Anchor, StoreError},
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
    desk: Arc<FrontDesk>,
    shutdown: CancellationToken,
    writer: std::sync::Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    stopped: CancellationToken,
    tasks: TaskTracker,
    doors: Option<SocketAddr>,
}

const INBOX: usize = 4096;
/// The writer naps for five seconds at the most.
const SILENT_AT_MOST_MS: u64 = 20_000;

impl Daemon {
    /// Takes the store, reads what was, opens the doors, and begins where the last process stopped.
    pub async fn start(config: Config, options: Options) -> Result<Daemon, StartError> {
        let parts = Parts::of_machine(&config, &options).await?;
        // Before anything is begun: an address that is taken ends it here.
        let listener = match door(&config, &options) {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let mut daemon = Daemon::build(&config, options, parts).await?;
        if let Some(listener) = listener {
            daemon.doors = listener.local_addr().ok();
            let limits = Limits {
                header_timeout: config.listen.header_timeout,
                body_timeout: config.listen.body_timeout,
                ..Limits::new(config.listen.max_body)
            };
            let answers = open_answers(&daemon.office.tools, &daemon.desk, &daemon.tasks, &daemon.shutdown);
            let doors = crate::evidence::serve(listener, limits, daemon.desk.clone(), answers, daemon.shutdown.clone());
            daemon.tasks.spawn(doors);
        }
        Ok(daemon)
    }

    /// Begins where the last process stopped, with these parts. Doors that the options ask for are the caller's to open, at
    /// once: time counts as watched from now on.
    pub async fn build(config: &Config, options: Options, parts: Parts) -> Result<Daemon, StartError> {
        let Parts { clock, chance, sealing, provider, prober, store, webhooks, alarm } = parts;
        let shared = Shared { provider, prober: Arc::new(prober), sealing: Arc::new(sealing), chance };
        let mut tools = Vec::new();
        for (webhook, keystore) in webhooks {
            tools.push(Arc::new(open_tools(webhook, keystore, &shared, store.as_ref()).await?));
        }
        // The witnesses are heard before the store is read: to one who only looks, the progress that a running daemon makes in
        // between is no sign of a restored backup.
        let early = if mutants::on(Mutant::StoreReadFirst) { Some(store.webhooks().await?) } else { None };
        let anchor = Anchor::load(&config.store.anchor, &store.id());
        let generations = keystore_generations(&tools).await;
        let stored = if let Some(early) = early { early } else { store.webhooks().await? };
        let (anchor, restored) = judge_anchor(config, store.as_ref(), anchor, &stored, options.read_only)?;
        let (inbox, messages) = mpsc::channel(INBOX);
        let desk = Arc::new(front_desk(&tools, inbox.clone())?);
        let mut wards = Vec::new();
        for ((place, tools), generation) in tools.iter().enumerate().zip(generations) {
            let identity = config.identity(&tools.config);
            let before = stored.iter().find(|stored| stored.webhook == tools.config.name);
            let witness = Witness { restored: restored.contains(&tools.config.name), keystore: generation };
            wards.push(open_ward(place, tools.clone(), identity, before, witness, store.as_ref(), &clock).await?);
        }
        let (board, tasks, shutdown) = (Arc::new(Board::default()), TaskTracker::new(), CancellationToken::new());
        board.beat(&clock);
        let office = Arc::new(Local {
            tools,
            board: board.clone(),
            store: store.clone(),
            inbox: inbox.clone(),
            clock: clock.clone(),
            home: home(config),
        });
        let writer = Writer {
            wards,
            store,
            anchor,
            inbox: messages,
            hands: Hands::new(inbox.clone(), clock.clone()),
            desk: desk.clone(),
            board,
            bell: Bell { notify: config.notify.clone().map(Arc::new), tasks: tasks.clone() },
            clock,
            doors_open: door(config, &options).is_some(),
            shutdown: shutdown.clone(),
            replies: Vec::new(),
            acknowledgements: Vec::new(),
            read_only: options.read_only,
            schedule: options.schedule.then(|| (office.clone(), tasks.clone())),
        };
        for (place, tools) in office.tools.iter().enumerate() {
            tasks.spawn(watch_status(place, tools.clone(), inbox.clone(), shutdown.clone()));
            if tools.config.preflight.come_and_go() {
                let preflight = tools.config.preflight.clone();
                tasks.spawn(members::watch(place, tools.config.name.clone(), preflight, inbox.clone(), shutdown.clone()));
            }
        }
        if options.schedule {
            tasks.spawn(ring(alarm, inbox, shutdown.clone()));
        }
        let stopped = CancellationToken::new();
        let writer = tokio::spawn(run(writer, stopped.clone()));
        // The first statuses are there before anybody can ask.
        while office.board.statuses().len() < office.tools.len() && !stopped.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let writer = std::sync::Mutex::new(Some(writer));
        Ok(Daemon { office, desk, shutdown, writer, stopped, tasks, doors: None })
    }

    /// Where the doors, wherever they are, find the keys and put what they saw.
    pub fn desk(&self) -> Arc<dyn Desk> {
        self.desk.clone()
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
    pub fn doors(&self) -> Option<SocketAddr> {
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

/// Where doors are to be opened, if they are.
fn door(config: &Config, options: &Options) -> Option<SocketAddr> {
    config.listen.deliveries.filter(|_| options.doors)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Doors { address, reason: error.to_string() })
}

/// However it ends, by a panic too, who waits for `stopped` is told.
async fn run(writer: Writer, stopped: CancellationToken) -> Result<(), StoreError> {
    let _stopped = stopped.drop_guard();
    let result = writer.run().await;
    if let Err(error) = &result {
        tracing::error!("{error}");
    }
    result
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

/// Reads the replicas' status files about once a second, where the keystore has a place for them.
async fn watch_status(place: usize, tools: Arc<Tools>, inbox: mpsc::Sender<Message>, shutdown: CancellationToken) {
    let mut told = None;
    while let Some(report) = tools.keystore.status().await {
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
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// Wakes the planner: the cron scheduler's tick, and a plain timer as a belt.
async fn ring(alarm: Alarm, inbox: mpsc::Sender<Message>, shutdown: CancellationToken) {
    let wake_up = match alarm {
        Alarm::Cron => cron(inbox.clone()).await,
        Alarm::Timer => None,
    };
    let period = Duration::from_secs(if wake_up.is_some() { 60 } else { 5 });
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(period) => {
                if inbox.send(Message::Wake).await.is_err() {
                    break;
                }
            }
        }
    }
    if let Some(wake_up) = wake_up {
        wake_up.shutdown().await;
    }
}

async fn cron(inbox: mpsc::Sender<Message>) -> Option<WakeUp> {
    // A full inbox means that the writer is awake anyway.
    let tick = move || inbox.try_send(Message::Wake).unwrap_or_default();
    match wake("*/5 * * * * *", tick).await {
        Ok(wake_up) => Some(wake_up),
        Err(error) => {
            tracing::warn!("the wake-up clock does not start ({error}); a plain timer does its work");
            None
        }
    }
}
