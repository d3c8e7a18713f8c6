//! What a consumer tells the daemon: a report of each delivery it has verified, and a copy of everything it got.
//!
//! Neither may hold up a delivery: what does not fit into the queue is dropped and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Verdict;
use crate::{
    evidence::event_of,
    sandbox::{SandboxError, http as web},
    secret::{Secret, signature},
};

/// The daemon's doors, as a consumer knows them.
#[derive(Clone)]
pub struct Doors {
    /// `http://127.0.0.1:8780`
    pub base: String,
    /// The webhook's name in hookturn's configuration.
    pub name: String,
    pub report_token: Option<Secret>,
    pub tap_token: Option<Secret>,
    pub reports: bool,
    pub mirror: bool,
}

pub(super) struct Courier {
    doors: Doors,
    reports: AtomicBool,
    mirror: AtomicBool,
    dropped: AtomicU64,
    queue: mpsc::Sender<reqwest::RequestBuilder>,
    client: reqwest::Client,
    _stop: DropGuard,
}

const QUEUE: usize = 8_192;
const WORKERS: usize = 8;

impl Courier {
    pub(super) fn start(doors: Doors) -> Result<Courier, SandboxError> {
        let (queue, requests) = mpsc::channel(QUEUE);
        let (requests, stop) = (Arc::new(Mutex::new(requests)), CancellationToken::new());
        for _ in 0..WORKERS {
            tokio::spawn(stop.clone().run_until_cancelled_owned(work(requests.clone())));
        }
        Ok(Courier {
            reports: AtomicBool::new(doors.reports),
            mirror: AtomicBool::new(doors.mirror),
            dropped: AtomicU64::new(0),
            queue,
            client: web::client(Duration::from_secs(5))?,
            doors,
            _stop: stop.drop_guard(),
        })
    }

    pub(super) fn switch(&self, reports: bool, mirror: bool) {
        self.reports.store(reports, Ordering::Relaxed);
        self.mirror.store(mirror, Ordering::Relaxed);
    }

    /// Messages that did not fit into the queue.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The copy that a mirror in front of the consumer makes, of every request, whatever the consumer thinks of it.
    pub(super) fn mirror(&self, headers: &HeaderMap, body: &Bytes) {
        if !self.mirror.load(Ordering::Relaxed) {
            return;
        }
        let mut copy = self.post("tap", self.doors.tap_token.as_ref()).body(body.clone());
        for name in signature::HEADERS.into_iter().chain(["content-type", "user-agent"]) {
            for value in headers.get_all(name) {
                copy = copy.header(name, value);
            }
        }
        self.enqueue(copy);
    }

    /// The report of a delivery whose signature verified.
    pub(super) fn report(&self, replica: &str, verdict: &Verdict, headers: &HeaderMap, body: &Bytes) {
        let (Some(kid), true) = (verdict.kid, self.reports.load(Ordering::Relaxed)) else { return };
        let digest = hex::encode(Sha256::digest(body));
        let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok());
        let report = json!({
            "kid": kid, "body_sha256": digest, "status": verdict.status.as_u16(), "replica": replica, "user_agent": agent,
            "event": event_of(body),
        });
        self.enqueue(self.post("report", self.doors.report_token.as_ref()).json(&report));
    }

    fn post(&self, door: &str, token: Option<&Secret>) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/{door}/{}", self.doors.base, self.doors.name));
        match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    fn enqueue(&self, request: reqwest::RequestBuilder) {
        if self.queue.try_send(request).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn work(requests: Arc<Mutex<mpsc::Receiver<reqwest::RequestBuilder>>>) {
    loop {
        let next = requests.lock().await.recv().await;
        let Some(request) = next else { return };
        // A daemon that is not there is the normal case of a consumer that runs before it.
        if let Ok(answer) = request.send().await {
            let _ = answer.bytes().await;
        }
    }
}
