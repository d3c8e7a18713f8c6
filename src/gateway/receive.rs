//! One request: read whole, verified, passed on, counted.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::task::yield_now;

use super::{
    headers,
    keys::{Keys, SharedKeys},
    outbox::Outbox,
    pairs::Pairs,
    upstream::{Answer, Upstream},
};
use crate::{
    config::{Ignore, Mode},
    evidence::{
        Attendant, Passed, Place, Reception, Unread, Verification, event_of, ignored, origin, presentable, verify, verify_ahead,
    },
    secret::{Ahead, Kid, Secret, signature::candidates},
};

/// A longer body is hashed where it keeps no other request from going on.
const LONG_BODY: usize = 256 * 1024;
/// From here on it pays to go on in company: to be hashed with another one, and to be sent with others.
const WORTH_COMPANY: usize = 16 * 1024;
/// Losses are logged with their reason, but not more often than this.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Serves every webhook that has a gateway.
#[derive(Clone)]
pub(super) struct Gateway {
    pub reception: Reception,
    lanes: Arc<[Lane]>,
    pairs: Arc<Pairs>,
}

/// A webhook, and connections to its consumer that nobody else uses.
struct Lane {
    site: Arc<Site>,
    upstream: Upstream,
}

/// One webhook.
pub(super) struct Site {
    pub name: String,
    pub keys: SharedKeys,
    pub upstream: Upstream,
    pub mode: Mode,
    /// The secret that the consumer behind knows.
    pub inner: Option<Secret>,
    pub timeout: Duration,
    pub outbox: Arc<Outbox>,
    pub tally: Tally,
    /// Synthetic checks are passed on as all others are, and count for nothing.
    pub ignore: Vec<Ignore>,
}

/// What has become of requests since the process began.
#[derive(Default)]
pub(super) struct Tally {
    lost: AtomicU64,
    unverified: AtomicU64,
    accepted: Mutex<Vec<(Kid, u64, DateTime<Utc>)>>,
    said: Mutex<Option<Instant>>,
}

impl Tally {
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn unverified(&self) -> u64 {
        self.unverified.load(Ordering::Relaxed)
    }

    /// How many deliveries under `kid` the consumer accepted, and when the last of them.
    pub fn accepted(&self, kid: Kid) -> (u64, Option<DateTime<Utc>>) {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.iter().find(|(known, ..)| *known == kid).map_or((0, None), |(_, count, at)| (*count, Some(*at)))
    }

    fn accept(&self, kid: Kid, keys: &Keys) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        match accepted.iter_mut().find(|(known, ..)| *known == kid) {
            Some((_, count, at)) => (*count, *at) = (*count + 1, Utc::now()),
            None => {
                accepted.retain(|(known, ..)| keys.kids.contains(known));
                accepted.push((kid, 1, Utc::now()));
            }
        }
    }

    fn may_say(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = said.is_none_or(|at| at.elapsed() >= SAY_EVERY);
        if quiet {
            *said = Some(Instant::now());
        }
        quiet
    }
}

impl Site {
    /// An answer of ours in place of the consumer's.
    fn lose(&self, status: StatusCode, reason: &str) -> Response<Answer> {
        let lost = self.tally.lost.fetch_add(1, Ordering::Relaxed) + 1;
        if self.tally.may_say() {
            tracing::warn!(webhook = self.name, status = status.as_u16(), lost, "a delivery was not passed on: {reason}");
        }
        own(status, reason)
    }

    fn unread(&self, unread: Unread) -> Response<Answer> {
        match unread {
            Unread::TooLarge(_) | Unread::Busy => self.lose(unread.status(), &unread.to_string()),
            // Its sender has gone away, or is none.
            Unread::CutOff | Unread::TooSlow => own(unread.status(), &unread.to_string()),
        }
    }
}

impl Gateway {
    pub fn new(reception: Reception, sites: &[Arc<Site>]) -> Gateway {
        let lane = |site: &Arc<Site>| Lane { site: site.clone(), upstream: site.upstream.apart() };
        Gateway { reception, lanes: sites.iter().map(lane).collect(), pairs: Arc::default() }
    }

    /// Closes the connections to consumers that have been idle for long.
    pub fn tidy(&self) {
        for lane in self.lanes.iter() {
            lane.upstream.tidy();
        }
    }

    /// Whether a balancer may send deliveries here.
    fn health(&self) -> Response<Answer> {
        let mut sites = self.lanes.iter().map(|lane| &lane.site);
        match sites.find(|site| site.mode == Mode::Enforce && site.keys.load().generation == 0) {
            None => own(StatusCode::OK, "ok"),
            Some(site) => own(StatusCode::SERVICE_UNAVAILABLE, &format!("{}: there are no keys yet", site.name)),
        }
    }

    async fn receive(&self, lane: &Lane, suffix: &str, peer: IpAddr, head: Parts, body: Incoming) -> Response<Answer> {
        let site = &*lane.site;
        let Some(_place): Option<Place> = self.reception.place() else {
            return site.unread(Unread::Busy);
        };
        let held = match self.reception.read(&head.headers, body, self.reception.limits.max_body).await {
            Ok(held) => held,
            Err(unread) => return site.unread(unread),
        };
        let keys = site.keys.load_full();
        // Who shows no signature is not worth a hash.
        let in_company = (WORTH_COMPANY..=LONG_BODY).contains(&held.bytes.len()) && candidates(&head.headers).is_ok();
        let ahead = if in_company { self.pairs.ahead(&held.bytes, &keys).await } else { None };
        let (head, found) = verified(head, &held.bytes, &keys, ahead).await;
        let matched = match found {
            Some(Verification::Matched { kid, header, prefixed, .. }) => Some((kid, header, prefixed)),
            Some(_) => None,
            None => return site.lose(StatusCode::SERVICE_UNAVAILABLE, "the thread that verified it ended early"),
        };
        if matched.is_none() {
            if site.mode == Mode::Enforce && keys.generation == 0 {
                return site.lose(StatusCode::SERVICE_UNAVAILABLE, "there are no keys yet");
            }
            site.tally.unverified.fetch_add(1, Ordering::Relaxed);
            if site.mode == Mode::Enforce {
                // No word about why.
                return own(StatusCode::UNAUTHORIZED, "");
            }
        }
        let counts = !ignored(&site.ignore, &head.headers, origin(&head.headers, Some(peer)));
        let told =
            matched.and_then(|(kid, header, prefixed)| told(site, kid, header, prefixed, peer, &head.headers, &held.bytes));
        let Some(request) = passed_on(site, suffix, head, held.bytes.clone(), matched) else {
            return own(StatusCode::BAD_REQUEST, "this path cannot be passed on");
        };
        if in_company {
            // What is verified in this turn is sent in the next: the consumer wakes once for all of it.
            yield_now().await;
        }
        match tokio::time::timeout(site.timeout, lane.upstream.send(request)).await {
            Ok(Ok(response)) => {
                if let Some((kid, ..)) = matched.filter(|_| counts) {
                    site.answered(kid, &keys, told, response.status());
                }
                back(response)
            }
            Ok(Err(failure)) => site.lose(StatusCode::BAD_GATEWAY, &failure.to_string()),
            Err(_) => site.lose(StatusCode::GATEWAY_TIMEOUT, "the consumer did not answer in time"),
        }
    }
}

impl Attendant for Gateway {
    type Body = Answer;

    async fn attend(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let uri = head.uri.clone();
        if uri.path() == "/healthz" && head.method == Method::GET {
            return self.health();
        }
        // `/hook/NAME`, and whatever comes after it.
        let Some(rest) = uri.path().strip_prefix("/hook/") else { return own(StatusCode::NOT_FOUND, "not found") };
        let (name, suffix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match self.lanes.iter().find(|lane| lane.site.name == name) {
            Some(lane) => self.receive(lane, suffix, peer, head, body).await,
            None => own(StatusCode::NOT_FOUND, "not found"),
        }
    }

    /// Whose delivery it was, only its request would have said.
    fn turned_away(&self) {
        for lane in self.lanes.iter() {
            lane.site.lose(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
        }
    }
}

impl Site {
    fn answered(&self, kid: Kid, keys: &Keys, told: Option<Passed>, status: StatusCode) {
        if status.is_success() {
            self.tally.accept(kid, keys);
        }
        // Only a success shows that it was accepted, and only a refusal that it was not.
        let says_something = status.is_success() || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if let (Some(mut told), true) = (told, says_something) {
            told.status = status.as_u16();
            self.outbox.put(told);
        }
    }
}

/// `None`: it could not be found out.
async fn verified(head: Parts, body: &Bytes, keys: &Arc<Keys>, ahead: Option<Ahead>) -> (Parts, Option<Verification>) {
    if body.len() <= LONG_BODY {
        let found = verify_ahead(&head.headers, body, &keys.keyring, ahead);
        return (head, Some(found));
    }
    let (body, keys, headers) = (body.clone(), keys.clone(), head.headers.clone());
    let found = tokio::task::spawn_blocking(move || verify(&headers, &body, &keys.keyring)).await;
    (head, found.ok())
}

/// A delivery as it will be told to the daemon, once the consumer has answered it.
fn told(
    site: &Site,
    kid: Kid,
    header: &'static str,
    prefixed: bool,
    peer: IpAddr,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Passed> {
    if !site.outbox.has_room() {
        return None;
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| presentable(&String::from_utf8_lossy(agent.as_bytes())));
    Some(Passed {
        kid,
        body_sha256: hex::encode(Sha256::digest(body)),
        // Not answered yet.
        status: 0,
        header: header.to_owned(),
        prefixed,
        event: event_of(body),
        user_agent: agent,
        peer: Some(peer),
        length: body.len(),
    })
}

/// The same method, path, query, end-to-end headers and bytes.
fn passed_on(
    site: &Site,
    suffix: &str,
    head: Parts,
    body: Bytes,
    matched: Option<(Kid, &'static str, bool)>,
) -> Option<Request<Full<Bytes>>> {
    let target = site.upstream.target(suffix, head.uri.query())?;
    let mut headers = head.headers;
    let host = match head.uri.authority() {
        // HTTP/2 has the host in the target.
        Some(authority) if !headers.contains_key(header::HOST) => HeaderValue::from_str(authority.as_str()).ok(),
        _ => None,
    };
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    let announced = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    headers::strip_hop_by_hop(&mut headers);
    headers::strip_claims(&mut headers);
    // It was answered here, by reading the body.
    headers.remove(header::EXPECT);
    headers.remove(header::CONTENT_LENGTH);
    if announced || !body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if let Some((kid, _, prefixed)) = matched {
        headers::name_kid(&mut headers, kid);
        if let Some(inner) = &site.inner {
            headers::resign(&mut headers, &body, inner, prefixed);
        }
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    Some(request)
}

/// The consumer's answer, as it is.
fn back(mut response: Response<Answer>) -> Response<Answer> {
    headers::strip_hop_by_hop(response.headers_mut());
    *response.version_mut() = http::Version::HTTP_11;
    response
}

/// An answer of our own.
fn own(status: StatusCode, text: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::own(text.to_owned()));
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
