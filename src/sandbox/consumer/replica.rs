use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    behaviour::Behaviour,
    counts::Counts,
    courier::Courier,
    keys::Keys,
    status::{self, Status},
};
use crate::{
    sandbox::{
        SandboxError,
        http::{Server, hang_up},
    },
    secret::{Kid, signature, signature::SignatureProblem},
};

/// One replica of the consumer. Cheap to clone; the replica runs until it is stopped.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    name: String,
    addr: SocketAddr,
    keystore: PathBuf,
    courier: Option<Arc<Courier>>,
    mind: Arc<Mutex<Mind>>,
}

/// What a replica knows, behind one lock.
struct Mind {
    behaviour: Behaviour,
    refresh: Duration,
    keys: Arc<Keys>,
    /// How long it looks at new content before it takes it, and the generation it looks at, since when.
    lag: Duration,
    coming: Option<(u64, Instant)>,
    /// The first keys ever loaded.
    first: Option<Arc<Keys>>,
    /// Why the newest content of the file was not taken.
    problem: Option<String>,
    counts: Counts,
    started_at: DateTime<Utc>,
    refused_in_a_row: u32,
    banned_until: Option<Instant>,
}

/// What becomes of one delivery.
pub(super) struct Verdict {
    pub(super) status: StatusCode,
    pub(super) kid: Option<Kid>,
    pub(super) refused: Option<&'static str>,
}

impl Verdict {
    pub(super) fn accepted(&self) -> bool {
        self.status.is_success()
    }

    fn refused(status: StatusCode, reason: &'static str) -> Verdict {
        Verdict { status, kid: None, refused: Some(reason) }
    }
}

/// A replica with what keeps it going.
pub(super) struct Running {
    pub(super) replica: Replica,
    server: Server,
    status: Option<JoinHandle<()>>,
    stop: DropGuard,
}

pub(super) struct Start<'a> {
    pub(super) name: String,
    pub(super) keystore: &'a Path,
    pub(super) refresh: Duration,
    pub(super) status_every: Option<Duration>,
    pub(super) courier: Option<Arc<Courier>>,
}

/// Bodies over this are refused with 413.
const BODY_CAP: usize = 10 * 1024 * 1024;
/// Even when nothing has changed, the status file is written as often as this: its age says that the replica lives.
const HEARTBEAT: Duration = Duration::from_secs(5);

impl Running {
    /// Reads the keys, then listens: a replica that is reachable has its keys.
    pub(super) async fn start(start: Start<'_>) -> Result<Running, SandboxError> {
        let mind = Arc::new(Mutex::new(Mind::new(start.refresh)));
        let door = Door { name: start.name.clone(), courier: start.courier.clone(), mind: mind.clone() };
        reload(&mind, start.keystore).await;
        let router = Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY_CAP)).with_state(door);
        let server = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), router).await?;
        let inner =
            Inner { name: start.name, addr: server.addr, keystore: start.keystore.to_owned(), courier: start.courier, mind };
        let (replica, stop) = (Replica(Arc::new(inner)), CancellationToken::new());
        tokio::spawn(stop.clone().run_until_cancelled_owned(refresh(replica.clone())));
        let status = start.status_every.map(|every| tokio::spawn(report_status(replica.clone(), every, stop.clone())));
        Ok(Running { replica, server, status, stop: stop.drop_guard() })
    }

    /// Leaves in an orderly way: the status file goes too.
    pub(super) async fn stop(self) {
        let Running { replica, server, status, stop } = self;
        drop(stop);
        server.stop().await;
        if let Some(status) = status {
            // A write that is under way must not bring the file back.
            let _ = status.await;
        }
        let _ = tokio::fs::remove_file(replica.status_path()).await;
    }
}

impl Replica {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Where deliveries, and probes of this one replica, go.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.0.addr)
    }

    pub fn behaviour(&self) -> Behaviour {
        self.mind().behaviour
    }

    pub fn behave(&self, behaviour: Behaviour) {
        let mut mind = self.mind();
        mind.behaviour = behaviour;
        (mind.refused_in_a_row, mind.banned_until) = (0, None);
    }

    /// New content of the keystore file is taken so long after it was found, from now on.
    pub fn lag(&self, lag: Duration) {
        self.mind().lag = lag;
    }

    /// Reads the keystore file now, if the behaviour reads it at all.
    pub async fn reload(&self) {
        if !matches!(self.behaviour(), Behaviour::NeverReloads | Behaviour::Down) {
            reload(&self.0.mind, &self.0.keystore).await;
        }
    }

    /// What a restart of the process does: counts from zero, and the keys of the file.
    pub async fn restart(&self) {
        {
            let mut mind = self.mind();
            *mind = Mind { behaviour: mind.behaviour, lag: mind.lag, ..Mind::new(mind.refresh) };
        }
        reload(&self.0.mind, &self.0.keystore).await;
    }

    /// The generation whose keys it accepts; 0: none.
    pub fn generation(&self) -> u64 {
        self.mind().keys().generation
    }

    /// The keys that it has loaded.
    pub fn kids(&self) -> Vec<Kid> {
        self.mind().keys().kids().collect()
    }

    /// Why the newest content of the keystore file was not taken.
    pub fn problem(&self) -> Option<String> {
        self.mind().problem.clone()
    }

    pub fn counts(&self) -> Counts {
        self.mind().counts.clone()
    }

    /// Reports and copies that did not fit into the queue to the daemon (of all replicas together).
    pub fn messages_dropped(&self) -> u64 {
        self.0.courier.as_ref().map_or(0, |courier| courier.dropped())
    }

    /// Where its status file is, if it writes one.
    pub fn status_path(&self) -> PathBuf {
        status::path(&self.0.keystore, &self.0.name)
    }

    fn mind(&self) -> MutexGuard<'_, Mind> {
        lock(&self.0.mind)
    }
}

impl Mind {
    fn new(refresh: Duration) -> Mind {
        Mind {
            behaviour: Behaviour::Good,
            refresh,
            keys: Arc::new(Keys::none()),
            lag: Duration::ZERO,
            coming: None,
            first: None,
            problem: None,
            counts: Counts::default(),
            started_at: Utc::now(),
            refused_in_a_row: 0,
            banned_until: None,
        }
    }

    fn keys(&self) -> &Arc<Keys> {
        match (self.behaviour, &self.first) {
            (Behaviour::FallsBackToOld, Some(first)) => first,
            _ => &self.keys,
        }
    }

    /// Takes what was read. Never back to a lower generation: a late write must not undo a newer one.
    fn take(&mut self, read: Result<Keys, String>) {
        match read {
            Ok(keys) if keys.generation < self.keys.generation => self.problem = Some("an older generation".to_owned()),
            Ok(keys) if self.lags_behind(&keys) => {}
            Ok(keys) => {
                self.keys = Arc::new(keys);
                self.first.get_or_insert_with(|| self.keys.clone());
                self.problem = None;
            }
            Err(reason) => self.problem = Some(reason),
        }
    }

    fn lags_behind(&mut self, keys: &Keys) -> bool {
        // A start, or what it has already: there is nothing to be late with.
        if self.first.is_none() || keys.generation == self.keys.generation {
            self.coming = None;
            return false;
        }
        let since = match self.coming {
            Some((generation, since)) if generation == keys.generation => since,
            _ => Instant::now(),
        };
        self.coming = Some((keys.generation, since));
        since.elapsed() < self.lag
    }

    fn note(&mut self, verdict: &Verdict) {
        self.counts.count(verdict);
        if verdict.status != StatusCode::UNAUTHORIZED {
            self.refused_in_a_row = 0;
            return;
        }
        self.refused_in_a_row += 1;
        if let Behaviour::Bans { after, ms } = self.behaviour
            && self.refused_in_a_row >= after
        {
            self.banned_until = Some(Instant::now() + Duration::from_millis(ms));
            self.refused_in_a_row = 0;
        }
    }
}

#[derive(Clone)]
struct Door {
    name: String,
    courier: Option<Arc<Courier>>,
    mind: Arc<Mutex<Mind>>,
}

async fn receive(State(door): State<Door>, headers: HeaderMap, body: Bytes) -> Response {
    let (behaviour, keys, banned) = {
        let mind = lock(&door.mind);
        (mind.behaviour, mind.keys().clone(), mind.banned_until.is_some_and(|until| Instant::now() < until))
    };
    match behaviour {
        Behaviour::Down => return hang_up(false),
        Behaviour::Slow { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
    if let Some(courier) = &door.courier {
        courier.mirror(&headers, &body);
    }
    let verdict =
        if banned { Verdict::refused(StatusCode::FORBIDDEN, "banned") } else { judge(behaviour, &keys, &headers, &body) };
    lock(&door.mind).note(&verdict);
    if let Some(courier) = &door.courier {
        courier.report(&door.name, &verdict, &headers, &body);
    }
    verdict.status.into_response()
}

fn judge(behaviour: Behaviour, keys: &Keys, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let parses = || serde_json::from_slice::<Value>(body).is_ok();
    match behaviour {
        Behaviour::DoesNotVerify => return Verdict { status: StatusCode::OK, kid: None, refused: None },
        Behaviour::ParsesFirst if !parses() => return Verdict::refused(StatusCode::BAD_REQUEST, "unparseable"),
        _ => {}
    }
    let candidates = match signature::candidates(headers) {
        Ok(candidates) => candidates,
        Err(problem) => return Verdict::refused(StatusCode::UNAUTHORIZED, reason(problem)),
    };
    let macs: Vec<[u8; 32]> = candidates.iter().map(|candidate| candidate.mac).collect();
    let Some(kid) = keys.matching(body, &macs, behaviour == Behaviour::RefusesTheNew) else {
        return Verdict::refused(StatusCode::UNAUTHORIZED, "mismatch");
    };
    if !parses() {
        return Verdict { status: StatusCode::BAD_REQUEST, kid: Some(kid), refused: Some("unparseable") };
    }
    let status = match behaviour {
        Behaviour::Fails { status } => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        _ => StatusCode::OK,
    };
    Verdict { status, kid: Some(kid), refused: None }
}

fn reason(problem: SignatureProblem) -> &'static str {
    match problem {
        SignatureProblem::Missing => "no-signature",
        SignatureProblem::Malformed => "malformed",
        SignatureProblem::Repeated => "repeated",
    }
}

/// Reads the keystore file again and again.
async fn refresh(replica: Replica) {
    loop {
        let pause = replica.mind().refresh;
        tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
        replica.reload().await;
    }
}

async fn reload(mind: &Mutex<Mind>, keystore: &Path) {
    let read = match tokio::fs::read(keystore).await {
        Ok(bytes) => Keys::parse(&bytes).map_err(str::to_owned),
        Err(error) => Err(format!("cannot be read: {}", error.kind())),
    };
    lock(mind).take(read);
}

/// Keeps the status file up to date, at most once in `every`.
async fn report_status(replica: Replica, every: Duration, stop: CancellationToken) {
    let mut written: Option<(Status, Instant)> = None;
    loop {
        let (status, down) = {
            let mind = replica.mind();
            (Status::new(replica.name(), mind.started_at, mind.keys(), &mind.counts), mind.behaviour == Behaviour::Down)
        };
        let fresh = written.as_ref().is_some_and(|(last, at)| *last == status && at.elapsed() < HEARTBEAT);
        if !fresh && !down && status::write(&replica.status_path(), &status).await.is_ok() {
            written = Some((status, Instant::now()));
        }
        if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return;
        }
    }
}

fn lock(mind: &Mutex<Mind>) -> MutexGuard<'_, Mind> {
    mind.lock().unwrap_or_else(PoisonError::into_inner)
}
