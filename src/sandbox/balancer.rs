//! One address in front of the replicas: what a webhook's URL points to. Request by request, in turn, without retries.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header};

use super::{
    SandboxError,
    http::{Server, client},
};

/// Where requests go; changes while the balancer runs.
#[derive(Clone, Default)]
pub struct Targets(Arc<Mutex<Vec<SocketAddr>>>);

impl Targets {
    pub fn new(addrs: Vec<SocketAddr>) -> Targets {
        Targets(Arc::new(Mutex::new(addrs)))
    }

    pub fn set(&self, addrs: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addrs;
    }

    fn nth(&self, turn: usize) -> Option<SocketAddr> {
        let addrs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        addrs.get(turn.checked_rem(addrs.len())?).copied()
    }
}

/// A balancer that listens. Dropping it stops it.
pub struct Balancer {
    pub addr: SocketAddr,
    server: Server,
}

impl Balancer {
    /// Listens on a free port of loopback.
    pub async fn start(targets: Targets) -> Result<Balancer, SandboxError> {
        let front = Front { targets, turn: Arc::default(), client: client(Duration::from_secs(60))? };
        let router = Router::new().fallback(forward).layer(DefaultBodyLimit::disable()).with_state(front);
        let server = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), router).await?;
        Ok(Balancer { addr: server.addr, server })
    }

    /// What the webhook's URL is set to.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    pub async fn shutdown(self) {
        self.server.stop().await;
    }
}

#[derive(Clone)]
struct Front {
    targets: Targets,
    turn: Arc<AtomicUsize>,
    client: reqwest::Client,
}

/// 502 where the replica does not answer: a POST is not sent twice.
async fn forward(State(front): State<Front>, method: http::Method, uri: Uri, mut headers: HeaderMap, body: Bytes) -> Response {
    let Some(target) = front.targets.nth(front.turn.fetch_add(1, Ordering::Relaxed)) else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = front.client.request(method, format!("http://{target}{path}")).headers(headers).body(body);
    match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            match answer.bytes().await {
                Ok(body) => (status, Body::from(body)).into_response(),
                Err(_) => StatusCode::BAD_GATEWAY.into_response(),
            }
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
