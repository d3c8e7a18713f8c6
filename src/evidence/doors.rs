use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Facts, Reason, Sighting, report::report, tap::tap};
use crate::{
    config,
    secret::{Keyring, Secret},
};

/// What the doors know and whom they tell. Called for every request: it must neither block nor touch a disk.
pub trait Desk: Send + Sync {
    /// The keys of a webhook. `None`: there is no such webhook.
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>>;
    /// The bearer token that its reports must carry, where one is configured.
    fn report_token(&self, name: &str) -> Option<Secret>;
    /// The same for its tap.
    fn tap_token(&self, name: &str) -> Option<Secret>;
    /// Something verified. False: it could not be taken.
    fn sighted(&self, sighting: Sighting) -> bool;
    /// Something came for a webhook that there is, and did not verify. It decides nothing.
    fn unverified(&self, name: &str, door: config::Door, reason: Reason, facts: &Facts);
}

/// The limits of the doors.
#[derive(Debug, Clone)]
pub struct DoorSettings {
    /// Bytes of one body.
    pub max_body: usize,
    /// For the head of a request, and for an idle connection until its next one.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// Beyond it, connections wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests whose body is in memory. Beyond it, 503.
    pub max_in_flight: usize,
    /// How long requests under way may go on after shutdown was asked for.
    pub drain: Duration,
    /// A connection is closed, between two requests, when it is so old.
    pub max_age: Duration,
}

impl DoorSettings {
    pub fn new(max_body: usize) -> DoorSettings {
        DoorSettings {
            max_body,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            max_connections: 512,
            max_in_flight: 32,
            drain: Duration::from_secs(5),
            max_age: Duration::from_secs(600),
        }
    }
}

/// Serves `POST /tap/{name}` and `POST /report/{name}`, HTTP/1.1 and HTTP/2 without TLS, until `shutdown`; then lets requests
/// under way finish, for [`DoorSettings::drain`] at most.
pub async fn serve(listener: TcpListener, settings: DoorSettings, desk: Arc<dyn Desk>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(settings.max_connections.max(1)));
    let drain = settings.drain;
    let doors = Doors::new(settings, desk);
    let router = router(doors.clone());
    let mut connections = JoinSet::new();
    while let Some((stream, peer, place)) = accept(&listener, &places, &shutdown).await {
        while connections.try_join_next().is_some() {}
        let connection = Connection { router: router.clone(), peer: Peer(Some(peer)), doors: doors.clone() };
        connections.spawn(connection.run(stream, place, shutdown.clone()));
    }
    drop(listener);
    // What is left after the deadline is cut off where the set is dropped.
    let _ = timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
}

/// The next connection, once there is a place for it. `None`: shutdown.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let next = async {
        let place = places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer.ip().to_canonical(), place)),
                // No file descriptors, or a connection that is gone already. The pause keeps the former from spinning.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        next = next => next,
    }
}

struct Connection {
    router: Router,
    peer: Peer,
    doors: Doors,
}

impl Connection {
    async fn run(self, stream: TcpStream, _place: OwnedSemaphorePermit, shutdown: CancellationToken) {
        let settings = &self.doors.settings;
        let begun = Arc::new(AtomicBool::new(false));
        let service = {
            let (router, peer, begun) = (self.router, self.peer, begun.clone());
            hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                begun.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(peer);
                router.clone().oneshot(request)
            })
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_timeout);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).keep_alive_interval(Some(settings.header_timeout));
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        // Before the first bytes have told HTTP/1 from HTTP/2 no timer of hyper's runs.
        let first = sleep(settings.header_timeout);
        let age = sleep(settings.max_age);
        let mut waiting = true;
        tokio::pin!(first, age);
        let mut leaving = false;
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = &mut first, if waiting => {
                    waiting = false;
                    if !begun.load(Ordering::Relaxed) {
                        return;
                    }
                }
                () = async { tokio::select! { () = &mut age => (), () = shutdown.cancelled() => () } }, if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn router(doors: Doors) -> Router {
    Router::new()
        .route("/tap/{name}", post(tap))
        .route("/report/{name}", post(report))
        .layer(middleware::from_fn_with_state(doors.clone(), within_limits))
        .with_state(doors)
}

/// A request has a place for as long as its body is in memory, or is told to come back. The place is in its extensions too,
/// for work that goes on where the sender goes away before its answer.
async fn within_limits(State(doors): State<Doors>, mut request: Request, next: Next) -> Response {
    match doors.in_flight.clone().try_acquire_owned() {
        Ok(place) => {
            let place = Arc::new(place);
            request.extensions_mut().insert(place.clone());
            let response = next.run(request).await;
            drop(place);
            response
        }
        Err(_) => Refusal::Busy.into_response(),
    }
}

/// What every request is handled with.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) settings: Arc<DoorSettings>,
    pub(super) desk: Arc<dyn Desk>,
    in_flight: Arc<Semaphore>,
}

impl Doors {
    fn new(settings: DoorSettings, desk: Arc<dyn Desk>) -> Doors {
        let in_flight = Arc::new(Semaphore::new(settings.max_in_flight.max(1)));
        Doors { settings: Arc::new(settings), desk, in_flight }
    }

    /// The whole body, as it came after transfer decoding and before any content decoding: what was signed.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body, cap: usize) -> Result<Bytes, Refusal> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > cap as u64) {
            return Err(Refusal::TooLarge(cap));
        }
        match timeout(self.settings.body_timeout, Limited::new(body, cap).collect()).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(cap)),
            Ok(Err(_)) => Err(Refusal::CutOff),
            Err(_) => Err(Refusal::TooSlow),
        }
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Peer, Self::Rejection> {
        Ok(parts.extensions.get::<Peer>().copied().unwrap_or(Peer(None)))
    }
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a bearer token is needed, and this is not the right one")]
    Unauthorized,
    #[error("there is no such webhook")]
    UnknownWebhook,
    #[error("{0}")]
    Field(&'static str),
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body ended early")]
    CutOff,
    #[error("the body took too long")]
    TooSlow,
    #[error("too much at once; try again")]
    Busy,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
            Refusal::UnknownWebhook => StatusCode::NOT_FOUND,
            Refusal::Field(_) | Refusal::CutOff => StatusCode::BAD_REQUEST,
            Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = Json(serde_json::json!({ "error": self.to_string() }));
        match self {
            Refusal::Unauthorized => (status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response(),
            Refusal::Busy => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
            _ => (status, body).into_response(),
        }
    }
}

/// Whether the request carries this bearer token, once. Compared by digest, so that not even its length shows in the time.
pub(super) fn authorized(headers: &HeaderMap, token: &Secret) -> bool {
    const SCHEME: &[u8] = b"Bearer ";
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, given)) = value.as_bytes().split_at_checked(SCHEME.len()) else { return false };
    let same = Sha256::digest(given).ct_eq(&Sha256::digest(token.expose().as_bytes()));
    scheme.eq_ignore_ascii_case(SCHEME) && bool::from(same)
}
