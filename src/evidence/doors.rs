use std::{net::IpAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Attendant, Facts, GatewayCounts, Hand, Limits, ProxyAnswers, Reason, Reception, Sighting, Unread, dispatch::gateway,
    report::report, tap::tap,
};
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
    /// Whether a delivery is one of a team's own synthetic checks, which are signed and are no evidence.
    fn ignores(&self, _name: &str, _headers: &HeaderMap, _from: Option<IpAddr>) -> bool {
        false
    }
    /// Such a delivery came: whatever another door says of the same body is no evidence either.
    fn set_aside(&self, _name: &str, _body_sha256: [u8; 32]) {}
    /// Something verified. False: it could not be taken.
    fn sighted(&self, sighting: Sighting) -> bool;
    /// Something came for a webhook that there is, and did not verify. It decides nothing.
    fn unverified(&self, name: &str, door: config::Door, reason: Reason, facts: &Facts);
    /// What a gateway could not pass on, and what it refused, since it began.
    fn gateway_counts(&self, name: &str, counts: GatewayCounts);
}

/// Serves `POST /tap/{name}`, `POST /report/{name}` and `POST /gateway/{name}` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    limits: Limits,
    desk: Arc<dyn Desk>,
    answers: ProxyAnswers,
    shutdown: CancellationToken,
) {
    let reception = Reception::new(limits);
    let doors = Doors { reception: reception.clone(), desk, answers };
    let attendant = Porter { router: router(doors) };
    reception.serve(listener, Hand::here(attendant), false, shutdown).await;
}

/// Hands a request to the routes.
#[derive(Clone)]
struct Porter {
    router: Router,
}

impl Attendant for Porter {
    type Body = Body;

    async fn attend(&self, peer: IpAddr, mut request: http::Request<Incoming>) -> Response {
        request.extensions_mut().insert(Peer(Some(peer)));
        let Ok(response) = self.router.clone().oneshot(request).await;
        response
    }
}

fn router(doors: Doors) -> Router {
    Router::new()
        .route("/tap/{name}", post(tap))
        .route("/report/{name}", post(report))
        .route("/gateway/{name}", post(gateway))
        .layer(middleware::from_fn_with_state(doors.clone(), within_limits))
        .with_state(doors)
}

/// A request has a place for as long as its body is in memory, or is told to come back. The place is in its extensions too,
/// for work that goes on where the sender goes away before its answer.
async fn within_limits(State(doors): State<Doors>, mut request: Request, next: Next) -> Response {
    match doors.reception.place() {
        Some(place) => {
            let place = Arc::new(place);
            request.extensions_mut().insert(place.clone());
            let response = next.run(request).await;
            drop(place);
            response
        }
        None => Refusal::Unread(Unread::Busy).into_response(),
    }
}

/// What every request is handled with.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) reception: Reception,
    pub(super) desk: Arc<dyn Desk>,
    pub(super) answers: ProxyAnswers,
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
    #[error("{} is missing, or not made with an accepted key", super::PROOF)]
    Unproven,
    #[error("there is no such webhook")]
    UnknownWebhook,
    #[error("{0}")]
    Field(&'static str),
    #[error(transparent)]
    Unread(#[from] Unread),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::Unauthorized | Refusal::Unproven => StatusCode::UNAUTHORIZED,
            Refusal::UnknownWebhook => StatusCode::NOT_FOUND,
            Refusal::Field(_) => StatusCode::BAD_REQUEST,
            Refusal::Unread(unread) => unread.status(),
        };
        let body = Json(serde_json::json!({ "error": self.to_string() }));
        match self {
            Refusal::Unauthorized => (status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response(),
            Refusal::Unread(Unread::Busy) => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
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
