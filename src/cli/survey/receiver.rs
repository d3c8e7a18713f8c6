//! Where the deliveries of a survey arrive: what came is written down, and each delivery gets the answer that its experiment needs.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{
    daemon::Clock,
    evidence::{
        Attendant, Reception, Verification, event_of, presentable,
        survey::{Arrival, Signed},
        verify,
    },
    rotation::Millis,
    secret::{Keyring, Kid, Secret, Standing, signature::candidates},
};

/// Requests that are written down, and those of them that a stranger who found the address can have made.
const MOST: usize = 1_000;
const MOST_STRANGE: usize = 200;
/// A larger body is not tried with every beginning of a secret.
const LONG_BODY: usize = 64 * 1024;

/// Shared by the receiver and the experiments.
pub struct Bench {
    clock: Clock,
    begun: u64,
    book: Mutex<Book>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    keys: Vec<(Kid, Secret, Signed)>,
    arrivals: Vec<Arrival>,
    dropped: u64,
    cut: Option<usize>,
    deliveries: HashMap<[u8; 32], Known>,
}

/// A delivery that has come before.
#[derive(Clone, Copy)]
struct Known {
    number: u32,
    body: [u8; 32],
    answer: u16,
}

impl Bench {
    pub fn new(clock: Clock) -> Arc<Bench> {
        let begun = clock.boottime_ms();
        Arc::new(Bench { clock, begun, book: Mutex::default(), news: watch::Sender::new(0) })
    }

    /// Milliseconds since the survey began.
    pub fn now(&self) -> Millis {
        self.clock.boottime_ms().saturating_sub(self.begun)
    }

    /// Deliveries signed with this are recognised from now on.
    pub fn knows(&self, kid: Kid, secret: Secret, signed: Signed) {
        self.book().keys.push((kid, secret, signed));
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.book().arrivals.clone()
    }

    pub fn dropped(&self) -> u64 {
        self.book().dropped
    }

    /// How many characters of a secret signed, where not all of them did.
    pub fn cut(&self) -> Option<usize> {
        self.book().cut
    }

    /// Waits until what has arrived satisfies `enough`.
    pub async fn until(&self, enough: impl Fn(&[Arrival]) -> bool) {
        let mut news = self.news.subscribe();
        while !enough(&self.book().arrivals) {
            // The sender lives as long as the bench does.
            let _ = news.changed().await;
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down, and says what it is answered.
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> u16 {
        let at = self.now();
        let mut book = self.book();
        let (signed, header, prefixed) = book.signed(headers, body);
        if book.full(signed) {
            book.dropped += 1;
            return 503;
        }
        if signed == Signed::Other && book.cut.is_none() && body.len() <= LONG_BODY {
            book.cut = book.cut_at(headers, body);
        }
        let event = event_of(body);
        let user_agent =
            headers.get(header::USER_AGENT).and_then(|agent| presentable(&String::from_utf8_lossy(agent.as_bytes())));
        let digest: [u8; 32] = Sha256::digest(body).into();
        let name = identity(body).unwrap_or(digest);
        let known = book.deliveries.get(&name).copied();
        let mut arrival = Arrival {
            at,
            delivery: 0,
            first: known.is_none(),
            signed,
            header: header.map(str::to_owned),
            prefixed,
            event,
            user_agent,
            answered: 0,
            same_body: true,
        };
        let known = known.unwrap_or_else(|| {
            let number = u32::try_from(book.deliveries.len()).unwrap_or(u32::MAX).saturating_add(1);
            Known { number, body: digest, answer: book.answer(&arrival) }
        });
        (arrival.delivery, arrival.answered, arrival.same_body) = (known.number, known.answer, known.body == digest);
        book.deliveries.insert(name, known);
        book.arrivals.push(arrival);
        drop(book);
        self.news.send_modify(|count| *count += 1);
        known.answer
    }
}

impl Book {
    /// What is genuine always finds room beside what need not be.
    fn full(&self, signed: Signed) -> bool {
        let strange = || self.arrivals.iter().filter(|arrival| !arrival.genuine()).count();
        self.arrivals.len() >= MOST || (!matches!(signed, Signed::A | Signed::B) && strange() >= MOST_STRANGE)
    }

    fn signed(&self, headers: &HeaderMap, body: &[u8]) -> (Signed, Option<&'static str>, bool) {
        let ring = self.keys.iter().map(|(kid, secret, _)| (*kid, secret.clone(), Standing::Accepted)).collect();
        match verify(headers, body, &Keyring::new(ring)) {
            Verification::Matched { kid, header, prefixed, .. } => {
                let signed = self.keys.iter().find(|(known, ..)| *known == kid).map_or(Signed::Other, |(.., signed)| *signed);
                (signed, Some(header), prefixed)
            }
            Verification::NoMatch => match candidates(headers).ok().and_then(|all| all.into_iter().next()) {
                Some(first) => (Signed::Other, Some(first.header), first.prefixed),
                None => (Signed::Other, None, false),
            },
            Verification::Problem(_) => (Signed::Unsigned, None, false),
        }
    }

    /// The shortest beginning of a secret of this survey that signed it: a provider may cut what is too long for it.
    fn cut_at(&self, headers: &HeaderMap, body: &[u8]) -> Option<usize> {
        let mut beginnings = self.keys.iter().filter(|(.., signed)| *signed != Signed::Earlier).flat_map(|(kid, secret, _)| {
            (1..secret.expose().len())
                .filter_map(|length| Some((*kid, Secret::parse(secret.expose().get(..length)?).ok()?, length)))
        });
        beginnings.find_map(|(kid, secret, length)| {
            let ring = Keyring::new(vec![(kid, secret, Standing::Accepted)]);
            matches!(verify(headers, body, &ring), Verification::Matched { .. }).then_some(length)
        })
    }

    /// The first delivery under A is refused with 503 whenever it comes: its retries show the schedule, and once B signs, what
    /// signs them. The first under B gets 401, as a consumer answers that lacks the secret. Everything else is taken.
    fn answer(&self, arrival: &Arrival) -> u16 {
        let spent = |status: u16| self.arrivals.iter().any(|other| other.answered == status);
        match arrival.signed {
            _ if arrival.is_verification() => 200,
            Signed::A if !spent(503) => 503,
            Signed::B if !spent(401) => 401,
            _ => 204,
        }
    }
}

/// What the tries of one delivery have in common, should their bodies differ: the call, the event and how it ended. `None`: the
/// body does not say, and is its own name.
fn identity(body: &[u8]) -> Option<[u8; 32]> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let call = [&value["payload"]["call"], &value["call"], &value];
    let id = call.iter().find_map(|call| call["call_id"].as_str().or_else(|| call["id"].as_str()))?;
    let status = call.iter().find_map(|call| call["status"].as_str()).unwrap_or_default();
    let event = value["event"].as_str().or_else(|| value["event_type"].as_str()).unwrap_or_default();
    Some(Sha256::digest(format!("{event}\0{id}\0{status}")).into())
}

/// Answers for the bench.
#[derive(Clone)]
pub struct Receiver {
    pub reception: Reception,
    pub bench: Arc<Bench>,
}

impl Attendant for Receiver {
    type Body = Full<Bytes>;

    async fn attend(&self, _: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = |status: StatusCode| {
            let mut response = Response::new(Full::default());
            *response.status_mut() = status;
            response
        };
        if request.method() != Method::POST {
            return answer(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Some(_place) = self.reception.place() else { return answer(StatusCode::SERVICE_UNAVAILABLE) };
        let (head, body) = request.into_parts();
        match self.reception.read(&head.headers, body, self.reception.limits.max_body).await {
            Ok(body) => {
                let status = self.bench.take(&head.headers, &body.bytes);
                answer(StatusCode::from_u16(status).unwrap_or(StatusCode::NO_CONTENT))
            }
            Err(unread) => answer(unread.status()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_of_one_delivery_are_one_even_if_they_count_themselves() {
        let name = |body: &str| identity(body.as_bytes());
        let flat = name(r#"{"event":"call.completed","call_id":"c1","status":"completed"}"#);
        assert!(flat.is_some());
        assert_eq!(flat, name(r#"{"attempt":2,"event":"call.completed","call_id":"c1","status":"completed"}"#));
        assert_eq!(flat, name(r#"{"event_type":"call.completed","payload":{"call":{"id":"c1","status":"completed"}}}"#));
        assert_ne!(flat, name(r#"{"event":"call.failed","call_id":"c1","status":"completed"}"#));
        for nameless in ["", "[]", r#"{"message":"hello"}"#] {
            assert_eq!(name(nameless), None, "{nameless}");
        }
    }
}
