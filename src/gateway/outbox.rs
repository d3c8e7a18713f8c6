//! What the daemon is told: which deliveries verified and what the consumer answered. The gateway never waits for it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{receive::Site, upstream::Upstream};
use crate::evidence::{Dispatch, GatewayCounts, PROOF, Passed, prove};

/// Deliveries that wait to be told of, while the daemon is away. The oldest go first: losing one only delays.
const KEPT: usize = 4096;
const IN_ONE_DISPATCH: usize = 256;
/// Deliveries per second that are told of one by one. A proof needs a few; a flood of them would only keep the daemon busy.
const PER_SECOND: f64 = 200.0;
/// More deliveries make one dispatch of it.
const GATHER: Duration = Duration::from_millis(100);
/// Counts are told as often as this, when they have changed.
const COUNTS_EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Outbox {
    replica: String,
    started_at: String,
    waiting: Mutex<VecDeque<(Instant, Passed)>>,
    allowance: Mutex<(f64, Instant)>,
    filled: Notify,
}

impl Outbox {
    pub fn new(replica: String, started_at: String) -> Outbox {
        let allowance = Mutex::new((PER_SECOND, Instant::now()));
        Outbox { replica, started_at, waiting: Mutex::default(), allowance, filled: Notify::new() }
    }

    /// Whether one more delivery is worth its hash.
    pub fn has_room(&self) -> bool {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let grown = allowance.0 + now.duration_since(allowance.1).as_secs_f64() * PER_SECOND;
        *allowance = (grown.min(PER_SECOND), now);
        let has_room = allowance.0 >= 1.0;
        if has_room {
            allowance.0 -= 1.0;
        }
        has_room
    }

    pub fn put(&self, passed: Passed) {
        let mut waiting = self.waiting();
        if waiting.len() >= KEPT {
            waiting.pop_front();
        }
        waiting.push_back((Instant::now(), passed));
        drop(waiting);
        self.filled.notify_one();
    }

    /// The oldest ones that are young enough. What is told late must not be taken for something that happened just now.
    fn take(&self, stale: Duration) -> Vec<(Instant, Passed)> {
        let mut waiting = self.waiting();
        while waiting.front().is_some_and(|(at, _)| at.elapsed() > stale) {
            waiting.pop_front();
        }
        let count = waiting.len().min(IN_ONE_DISPATCH);
        waiting.drain(..count).collect()
    }

    fn put_back(&self, batch: Vec<(Instant, Passed)>) {
        let mut waiting = self.waiting();
        for entry in batch.into_iter().rev() {
            if waiting.len() < KEPT {
                waiting.push_front(entry);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, Passed)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries dispatches to the daemon's door until `end`, and once more then. `stale`: a fraction of the drain, which is how
/// late a delivery may come to be seen.
pub(super) async fn carry(site: Arc<Site>, daemon: SocketAddr, stale: Duration, end: CancellationToken) {
    let Ok(door) = Upstream::new(&format!("http://{daemon}/gateway/{}", site.name)) else { return };
    let (mut told, mut pause, mut down) = (None, GATHER, false);
    while !end.is_cancelled() {
        tokio::select! {
            () = end.cancelled() => {}
            () = site.outbox.filled.notified() => {}
            () = tokio::time::sleep(COUNTS_EVERY) => door.tidy(),
        }
        loop {
            // What comes within a moment goes together; after a failure the moment is longer.
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let counts = site.counts();
            if site.outbox.is_empty() && told.as_ref() == Some(&counts) {
                break;
            }
            let batch = site.outbox.take(stale);
            match deliver(&site, &door, daemon, counts.clone(), &batch).await {
                Ok(()) => {
                    told = Some(counts);
                    if std::mem::take(&mut down) {
                        tracing::info!(webhook = site.name, "the daemon is told again what is passed on");
                    }
                    pause = GATHER;
                }
                Err(reason) => {
                    site.outbox.put_back(batch);
                    if !std::mem::replace(&mut down, true) {
                        tracing::warn!(
                            webhook = site.name,
                            "the daemon cannot be told what is passed on ({reason}); it is kept meanwhile"
                        );
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if end.is_cancelled() {
                break;
            }
        }
    }
}

async fn deliver(
    site: &Site,
    door: &Upstream,
    daemon: SocketAddr,
    counts: GatewayCounts,
    batch: &[(Instant, Passed)],
) -> Result<(), String> {
    let dispatch = Dispatch { counts, passed: batch.iter().map(|(_, passed)| passed.clone()).collect() };
    let body = serde_json::to_vec(&dispatch).map_err(|error| error.to_string())?;
    let keys = site.keys.load_full();
    let proof = keys.keyring.iter().next().map(|(kid, secret, _)| prove(kid, secret, &body));
    let proof = proof.ok_or("there is no key to prove it with")?;
    let mut request = Request::post(door.target("", None).unwrap_or_default())
        .header(header::HOST, daemon.to_string())
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    request.headers_mut().insert(PROOF, HeaderValue::from_str(&proof).map_err(|error| error.to_string())?);
    let answer = tokio::time::timeout(TIMEOUT, async {
        let response = door.send(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read to its end, so that the connection can be used again.
        let _ = Limited::new(response.into_body(), 4096).collect().await;
        Ok(status)
    });
    match answer.await {
        Ok(Ok(StatusCode::ACCEPTED)) => Ok(()),
        Ok(Ok(status)) => Err(format!("it answers {status}")),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

impl Site {
    fn counts(&self) -> GatewayCounts {
        GatewayCounts {
            replica: self.outbox.replica.clone(),
            started_at: self.outbox.started_at.clone(),
            lost: self.tally.lost(),
            unverified: self.tally.unverified(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Kid;

    fn passed(status: u16) -> Passed {
        Passed {
            kid: Kid::parse("k").expect("kid"),
            body_sha256: "00".repeat(32),
            status,
            header: "x-nexa-signature".to_owned(),
            prefixed: true,
            event: None,
            user_agent: None,
            peer: None,
            length: 2,
        }
    }

    #[test]
    fn a_full_box_loses_the_oldest_and_a_stale_one_is_not_told() {
        let outbox = Outbox::new("gateway-1".to_owned(), String::new());
        for at in 0..=KEPT {
            outbox.put(passed(u16::try_from(at % 7).expect("small")));
        }
        let taken = outbox.take(Duration::from_secs(60));
        assert_eq!((taken.len(), taken[0].1.status), (IN_ONE_DISPATCH, 1), "the first one is gone");
        outbox.put_back(taken);
        assert_eq!(outbox.take(Duration::from_secs(60))[0].1.status, 1, "in their order again");
        assert!(outbox.take(Duration::ZERO).is_empty());
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_flood_is_told_of_in_part() {
        let outbox = Outbox::new("gateway-1".to_owned(), String::new());
        let told = (0..10_000).filter(|_| outbox.has_room()).count();
        assert!((200..5_000).contains(&told), "{told}");
    }
}
