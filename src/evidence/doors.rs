//! The HTTP server for evidence: `POST /report/{name}` and `POST /tap/{name}`, over HTTP/1.1 and h2c.
//!
//! It faces whatever can reach its address, so everything is bounded: connections, requests at a time, bytes of one body
//! and of all of them, and the time for a header, a body and an idle connection. `axum::serve` bounds none of these, so the
//! connections are driven by hand. Over a bound the answer is 503 with `Retry-After`, or 413 for a body.
//!
//! Nothing here waits for the rest of the program: keys are read without a lock, and what was seen is handed over without
//! waiting, or dropped and counted. A lost sighting costs time and nothing else.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, interval_at, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{Facts, Reason, Sighting, body, report, tap};
use crate::{
    config::Door,
    secret::{Keyring, Secret},
};

/// What the doors allow. All of it is checked for every request, whoever sends it.
#[derive(Debug, Clone, Copy)]
pub struct DoorSettings {
    /// Bytes of one delivery's body.
    pub max_body: usize,
    /// Bytes of all bodies that are held at one time; never less than `max_body`.
    pub max_buffered: usize,
    /// For the first request to arrive on a connection, for each header, and for the next request to come.
    pub header_timeout: Duration,
    /// For a body to be whole.
    pub body_timeout: Duration,
    pub max_connections: usize,
    pub max_in_flight: usize,
    /// After the shutdown signal, for what is under way to end.
    pub drain: Duration,
}

impl Default for DoorSettings {
    fn default() -> DoorSettings {
        DoorSettings {
            max_body: 10 << 20,
            max_buffered: 128 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            max_connections: 1024,
            max_in_flight: 256,
            drain: Duration::from_secs(10),
        }
    }
}

/// Who the doors work for. No method may block: they are called between two packets.
pub trait Desk: Send + Sync {
    /// The keys of a webhook. `None`: there is no webhook of this name.
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>>;

    /// The bearer token that reports must carry, if any.
    fn report_token(&self, name: &str) -> Option<Arc<Secret>>;

    /// The bearer token that tapped copies must carry, if any.
    fn tap_token(&self, name: &str) -> Option<Arc<Secret>>;

    /// Takes a sighting over. `false`: there is no room, and it was dropped and counted.
    fn sighted(&self, sighting: Sighting) -> bool;

    /// Something for a webhook that exists came and is no evidence. To be counted; it must never trigger anything.
    fn unverified(&self, name: &str, door: Door, reason: Reason, facts: Facts);
}

/// Binds the address without serving it yet, so that a daemon can fail before it says that it is up.
///
/// # Errors
/// As the operating system has them: in use, not allowed, no such address.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves until `shutdown`, then lets what is under way end for at most `settings.drain`. Dropping the future closes
/// everything at once.
pub async fn serve(listener: TcpListener, settings: DoorSettings, desk: Arc<dyn Desk>, shutdown: CancellationToken) {
    let house = Arc::new(House::new(settings, desk));
    let router = Router::new()
        .route("/report/{name}", post(report::take))
        .route("/tap/{name}", post(tap::take))
        .with_state(Arc::clone(&house));
    let abandon = CancellationToken::new();
    let _abandon_when_dropped = abandon.clone().drop_guard();
    let porter = Porter {
        router,
        settings,
        shutdown: shutdown.clone(),
        abandon: abandon.clone(),
        places: Arc::new(Semaphore::new(settings.max_connections)),
        refusals: Arc::new(Semaphore::new(Porter::REFUSALS)),
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => porter.admit(stream, peer.ip(), &house.tasks),
            // Out of file descriptors, or the peer is gone already: neither is cured by trying again at once.
            Err(error) => {
                tracing::debug!(%error, "a connection to the evidence doors could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    house.tasks.close();
    if timeout(settings.drain, house.tasks.wait()).await.is_err() {
        abandon.cancel();
        house.tasks.wait().await;
    }
}

/// What all requests share.
pub(super) struct House {
    pub(super) settings: DoorSettings,
    pub(super) desk: Arc<dyn Desk>,
    in_flight: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

impl House {
    fn new(settings: DoorSettings, desk: Arc<dyn Desk>) -> House {
        House {
            settings,
            desk,
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight)),
            memory: Arc::new(Semaphore::new(settings.max_buffered.max(settings.max_body))),
            tasks: TaskTracker::new(),
        }
    }

    /// A place for one more request.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.in_flight).try_acquire_owned().ok()
    }

    /// Reads the body, or says what to answer instead.
    pub(super) async fn read(&self, body: Body, cap: usize) -> Result<body::Held, body::NoBody> {
        body::read(body, cap, self.settings.body_timeout, &self.memory).await
    }

    /// Counts what is no evidence. Names that do not exist are not counted: whoever asks makes them up.
    pub(super) fn unverified(&self, name: &str, door: Door, reason: Reason, facts: Facts) {
        if self.desk.keyring(name).is_some() {
            self.desk.unverified(name, door, reason, facts);
        }
    }

    /// Does work that the answer does not wait for; long work where it holds nobody up.
    pub(super) fn afterwards(&self, long: bool, work: impl FnOnce() + Send + 'static) {
        if long {
            self.tasks.spawn_blocking(work);
        } else {
            work();
        }
    }
}

/// Whether the request carries `Authorization: Bearer <token>`.
pub(super) fn bears(headers: &HeaderMap, token: &Secret) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    match value.as_bytes().split_at_checked("Bearer ".len()) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
            given.trim_ascii().ct_eq(token.expose().as_bytes()).into()
        }
        _ => false,
    }
}

pub(super) fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "too much at a time\n").into_response()
}

impl IntoResponse for body::NoBody {
    fn into_response(self) -> Response {
        match self {
            body::NoBody::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is over the cap\n").into_response(),
            body::NoBody::CutOff => (StatusCode::BAD_REQUEST, "the body is not whole\n").into_response(),
            body::NoBody::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response(),
            body::NoBody::NoMemory => busy(),
        }
    }
}

/// Lets connections in, and watches over each.
struct Porter {
    router: Router,
    settings: DoorSettings,
    shutdown: CancellationToken,
    abandon: CancellationToken,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Porter {
    /// How many connections at a time are told that there is no place, rather than just closed.
    const REFUSALS: usize = 64;

    fn admit(&self, stream: TcpStream, peer: IpAddr, tasks: &TaskTracker) {
        let _ = stream.set_nodelay(true);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let connection = self.attend(stream, peer);
            tasks.spawn(async move {
                connection.await;
                drop(place);
            });
        } else if let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() {
            tasks.spawn(async move {
                let _ = timeout(Duration::from_secs(1), refuse(stream)).await;
                drop(turn);
            });
        }
    }

    /// Serves one connection to its end. One that brings no request for a whole `header_timeout` is asked to leave, and
    /// thrown out after another: this holds for a client that never speaks, for an idle one, and for one that does not
    /// read its answers.
    fn attend(&self, stream: TcpStream, peer: IpAddr) -> impl Future<Output = ()> + Send + use<> {
        let (shutdown, abandon, settings) = (self.shutdown.clone(), self.abandon.clone(), self.settings);
        let pulse = Arc::new(Pulse::default());
        let service = {
            let (router, pulse) = (self.router.clone(), Arc::clone(&pulse));
            service_fn(move |request| answer(router.clone(), request, peer, pulse.begin()))
        };
        async move {
            let protocol = protocol(&settings);
            let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
            let mut patience = interval_at(Instant::now() + settings.header_timeout, settings.header_timeout);
            let (mut leaving, mut seen) = (false, 0);
            loop {
                let over = tokio::select! {
                    _ = connection.as_mut() => return,
                    () = abandon.cancelled() => return,
                    () = shutdown.cancelled(), if !leaving => true,
                    _ = patience.tick() => match pulse.idle_since(&mut seen) {
                        true if leaving => return,
                        idle => idle,
                    },
                };
                if over {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn protocol(settings: &DoorSettings) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_timeout).max_buf_size(64 << 10);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10);
    protocol
}

async fn answer(router: Router, request: Request<Incoming>, peer: IpAddr, beat: Beat) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    let response = router.oneshot(request).await;
    drop(beat);
    response
}

/// Says 503, and reads what was sent already: closing over unread bytes would reset the connection under the answer.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    const NO_PLACE: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(NO_PLACE).await?;
    stream.shutdown().await?;
    let mut unread = [0u8; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Whether requests come on a connection.
#[derive(Default)]
struct Pulse {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

/// One request under way.
struct Beat(Arc<Pulse>);

impl Pulse {
    fn begin(self: &Arc<Pulse>) -> Beat {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Beat(Arc::clone(self))
    }

    /// Whether nothing is under way and nothing began since `seen`, which is brought up to date.
    fn idle_since(&self, seen: &mut u64) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        let none_began = std::mem::replace(seen, begun) == begun;
        none_began && self.under_way.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
