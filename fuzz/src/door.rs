use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hookturn::{
    config,
    evidence::{Desk, Facts, GatewayCounts, Limits, ProxyAnswers, Reason, Sighting, serve},
    secret::{Keyring, Kid, Secret, Standing},
};
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

const CAP: usize = 4096;

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Book(Mutex<Vec<Sighting>>);

impl Desk for Book {
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>> {
        let key = |name: &str, standing| (Kid::parse(name).expect("a kid"), Secret::parse(name).expect("a secret"), standing);
        (name == "billing")
            .then(|| Arc::new(Keyring::new(vec![key("k_now", Standing::Accepted), key("k_gone", Standing::Retired)])))
    }

    fn report_token(&self, _: &str) -> Option<Secret> {
        None
    }

    fn tap_token(&self, name: &str) -> Option<Secret> {
        (name == "guarded").then(|| Secret::parse("token").expect("a secret"))
    }

    fn sighted(&self, sighting: Sighting) -> bool {
        self.0.lock().expect("lock").push(sighting);
        true
    }

    fn unverified(&self, _: &str, _: config::Door, _: Reason, _: &Facts) {}

    fn gateway_counts(&self, _: &str, _: GatewayCounts) {}
}

struct Doors {
    /// It serves for as long as the process lives.
    _runtime: Runtime,
    address: SocketAddr,
    book: Arc<Book>,
    /// One input at a time: what was sighted is what came of it.
    turn: Mutex<()>,
}

fn doors() -> &'static Doors {
    static DOORS: OnceLock<Doors> = OnceLock::new();
    DOORS.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let book = Arc::new(Book::default());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(serve(listener, Limits::new(CAP), book.clone(), ProxyAnswers::default(), CancellationToken::new()));
        Doors { _runtime: runtime, address, book, turn: Mutex::new(()) }
    })
}

/// What is sent to the doors, over a real connection: after `R` the body of a report, after `T` that of a tap; else all of it,
/// as bytes of HTTP.
///
/// A report is taken if it says what a report must, and refused otherwise; nothing ends the server.
pub fn door(data: &[u8]) {
    let doors = doors();
    let _turn = doors.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    doors.book.0.lock().expect("lock").clear();
    let panics = PANICS.load(Ordering::SeqCst);
    let (kind, body) = data.split_first().map_or((0, data), |(kind, body)| (*kind, body));
    let request = match kind {
        b'R' => post("/report/billing", body),
        b'T' => post("/tap/billing", body),
        _ => data.to_vec(),
    };
    let whole = matches!(kind, b'R' | b'T');
    let answer = exchange(doors.address, &request, whole);
    let status = status_of(&answer);
    let sightings = doors.book.0.lock().expect("lock").len();
    match kind {
        b'R' => {
            let expected = if body.len() > CAP {
                413
            } else if says_all(body) {
                202
            } else {
                400
            };
            assert_eq!(status, Some(expected), "{}", String::from_utf8_lossy(body));
            assert!(sightings <= usize::from(expected == 202));
        }
        b'T' => {
            assert_eq!(status, Some(if body.len() > CAP { 413 } else { 204 }));
            assert_eq!(sightings, 0, "it carries no signature");
        }
        _ => assert!(answer.is_empty() || status.is_some() || answer.starts_with(b"\0"), "{}", String::from_utf8_lossy(&answer)),
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), panics, "a door fell over");
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn exchange(address: SocketAddr, request: &[u8], whole: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the doors are open");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut answer = Vec::new();
    // A server that refuses early closes early.
    let _ = stream.write_all(request);
    if !whole {
        // Half a request would be waited for.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let _ = (&mut stream).take(1 << 20).read_to_end(&mut answer);
    assert!(answer.len() < 1 << 20, "an answer without an end");
    answer
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

/// docs/consumers.md, read once more by somebody else.
fn says_all(body: &[u8]) -> bool {
    let Ok(Value::Object(said)) = serde_json::from_slice(body) else { return false };
    let kid = said.get("kid").and_then(Value::as_str).unwrap_or_default();
    let kid_fits = (1..=47).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let digest = said.get("body_sha256").and_then(Value::as_str).unwrap_or_default();
    let digest_fits = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    let status_fits = said.get("status").and_then(Value::as_u64).is_some_and(|status| (100..=599).contains(&status));
    let replica_fits = match said.get("replica") {
        None | Some(Value::Null) => true,
        Some(Value::String(name)) => (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control),
        Some(_) => false,
    };
    kid_fits && digest_fits && status_fits && replica_fits
}
