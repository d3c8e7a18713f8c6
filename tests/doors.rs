//! The evidence doors over real sockets: what well-behaved, broken and hostile senders get, and what the desk hears of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hookturn::{
    config::Door,
    evidence::{Desk, DoorSettings, Facts, Reason, Sighting, bind, body_sha256, serve},
    secret::{Keyring, Kid, Secret, Standing, signature},
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const BODY: &[u8] = br#"{"event":"call.completed","call_id":"c1"}"#;
/// Far longer than anything takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Clerk {
    keyring: Arc<Keyring>,
    report_token: Option<Arc<Secret>>,
    tap_token: Option<Arc<Secret>>,
    full: AtomicBool,
    sightings: mpsc::UnboundedSender<Sighting>,
    others: mpsc::UnboundedSender<(String, Door, Reason, Facts)>,
}

impl Desk for Clerk {
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>> {
        (name == "billing").then(|| Arc::clone(&self.keyring))
    }

    fn report_token(&self, _: &str) -> Option<Arc<Secret>> {
        self.report_token.clone()
    }

    fn tap_token(&self, _: &str) -> Option<Arc<Secret>> {
        self.tap_token.clone()
    }

    fn sighted(&self, sighting: Sighting) -> bool {
        !self.full.load(Ordering::SeqCst) && self.sightings.send(sighting).is_ok()
    }

    fn unverified(&self, name: &str, door: Door, reason: Reason, facts: Facts) {
        let _ = self.others.send((name.to_owned(), door, reason, facts));
    }
}

/// A running server, and what its desk hears.
struct Doors {
    addr: SocketAddr,
    clerk: Arc<Clerk>,
    sightings: mpsc::UnboundedReceiver<Sighting>,
    others: mpsc::UnboundedReceiver<(String, Door, Reason, Facts)>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Doors {
    async fn open(settings: DoorSettings) -> Doors {
        Doors::open_with(settings, None).await
    }

    async fn open_with(settings: DoorSettings, token: Option<&str>) -> Doors {
        let (sightings, seen) = mpsc::unbounded_channel();
        let (others, heard) = mpsc::unbounded_channel();
        let token = token.map(|text| Arc::new(secret(text)));
        let keys =
            vec![(kid("k_old"), secret("whsec_old"), Standing::Retired), (kid("k_new"), secret("whsec_new"), Standing::Accepted)];
        let clerk = Arc::new(Clerk {
            keyring: Arc::new(Keyring::new(keys)),
            report_token: token.clone(),
            tap_token: token,
            full: AtomicBool::new(false),
            sightings,
            others,
        });
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, settings, Arc::clone(&clerk) as Arc<dyn Desk>, shutdown.clone()));
        Doors { addr, clerk, sightings: seen, others: heard, shutdown, serving }
    }

    async fn connect(&self) -> Wire {
        Wire(TcpStream::connect(self.addr).await.expect("connect"))
    }

    /// One request on a connection of its own; the whole answer as text.
    async fn exchange(&self, request: &Req<'_>) -> String {
        let mut wire = self.connect().await;
        wire.write(&request.bytes()).await;
        wire.rest().await
    }

    async fn status(&self, request: &Req<'_>) -> u16 {
        status(&self.exchange(request).await)
    }

    async fn sighting(&mut self) -> Sighting {
        timeout(PATIENCE, self.sightings.recv()).await.expect("a sighting in time").expect("a sighting")
    }

    async fn reason(&mut self) -> (Door, Reason) {
        let (name, door, reason, _) = timeout(PATIENCE, self.others.recv()).await.expect("a word in time").expect("a word");
        assert_eq!(name, "billing");
        (door, reason)
    }

    /// Stops, and returns when nothing can be heard any more.
    async fn stop(&mut self) {
        self.shutdown.cancel();
        timeout(PATIENCE, &mut self.serving).await.expect("stopped in time").expect("no panic");
    }

    async fn heard_nothing(&mut self) {
        self.stop().await;
        assert!(self.sightings.try_recv().is_err() && self.others.try_recv().is_err());
    }
}

struct Wire(TcpStream);

impl Wire {
    async fn write(&mut self, bytes: &[u8]) {
        // The server may answer and close before everything is written.
        let _ = self.0.write_all(bytes).await;
    }

    /// Everything until the server closes. A reset counts as a close.
    async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut all)).await.expect("closed in time");
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, self.0.read_u8()).await.expect("an answer in time").expect("an answer"));
        }
        String::from_utf8_lossy(&head).into_owned()
    }
}

struct Req<'a> {
    line: &'a str,
    headers: Vec<(&'a str, String)>,
    body: &'a [u8],
}

impl<'a> Req<'a> {
    fn post(path: &'a str, body: &'a [u8]) -> Req<'a> {
        Req { line: path, headers: Vec::new(), body }
    }

    fn with(mut self, name: &'a str, value: impl Into<String>) -> Req<'a> {
        self.headers.push((name, value.into()));
        self
    }

    fn head(&self) -> String {
        let line = if self.line.starts_with('/') { format!("POST {}", self.line) } else { self.line.to_owned() };
        let mut head = format!("{line} HTTP/1.1\r\nHost: doors\r\nConnection: close\r\n");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    fn bytes(&self) -> Vec<u8> {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head(), self.body.len());
        [head.as_bytes(), self.body].concat()
    }
}

fn kid(text: &str) -> Kid {
    Kid::parse(text).expect("a kid")
}

fn secret(text: &str) -> Secret {
    Secret::parse(text).expect("a secret")
}

fn sign(text: &str, body: &[u8]) -> String {
    signature::sign(&secret(text), body)
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn small() -> DoorSettings {
    DoorSettings { max_body: 1000, ..DoorSettings::default() }
}

/// Impatient, for senders that never go on.
fn hasty() -> DoorSettings {
    let hasty = Duration::from_millis(200);
    DoorSettings { header_timeout: hasty, body_timeout: hasty, drain: hasty, ..small() }
}

#[tokio::test]
async fn a_tapped_copy_is_seen_with_its_key_under_every_spelling_of_the_signature() {
    let mut doors = Doors::open(small()).await;
    let signed = sign("whsec_new", BODY);
    let bare = signed.trim_start_matches("sha256=").to_owned();
    for (name, value, prefixed) in [
        ("X-Nexa-Signature", signed.clone(), true),
        ("x-dialnexa-signature", bare.clone(), false),
        ("X-DialNexa-Signature", format!("SHA256={}", bare.to_uppercase()), true),
    ] {
        let request = Req::post("/tap/billing", BODY).with(name, value).with("User-Agent", "DialNexa/1.0");
        assert_eq!(doors.status(&request).await, 204);
        let seen = doors.sighting().await;
        assert_eq!((seen.webhook.as_str(), seen.door, seen.kid), ("billing", Door::Tap, kid("k_new")));
        assert_eq!((seen.standing, seen.accepted), (Some(Standing::Accepted), None));
        assert_eq!(seen.body_sha256, body_sha256(BODY));
        assert_eq!(seen.facts.header, Some(if name.contains("ial") { "x-dialnexa-signature" } else { "x-nexa-signature" }));
        assert_eq!((seen.facts.prefixed, seen.facts.length), (Some(prefixed), BODY.len()));
        assert_eq!(seen.facts.event.as_deref(), Some("call.completed"));
        assert_eq!(seen.facts.user_agent.as_deref(), Some("DialNexa/1.0"));
        assert_eq!(seen.facts.peer, Some([127, 0, 0, 1].into()));
    }
    doors.heard_nothing().await;
}

#[tokio::test]
async fn a_retired_key_is_named_as_such_and_either_of_two_headers_may_be_the_right_one() {
    let mut doors = Doors::open(small()).await;
    let old = Req::post("/tap/billing", BODY).with("x-nexa-signature", sign("whsec_old", BODY));
    assert_eq!(doors.status(&old).await, 204);
    let seen = doors.sighting().await;
    assert_eq!((seen.kid, seen.standing), (kid("k_old"), Some(Standing::Retired)));
    let both = Req::post("/tap/billing", BODY)
        .with("x-nexa-signature", sign("whsec_stranger", BODY))
        .with("x-dialnexa-signature", sign("whsec_new", BODY));
    assert_eq!(doors.status(&both).await, 204);
    assert_eq!(doors.sighting().await.kid, kid("k_new"));
}

#[tokio::test]
async fn what_does_not_verify_gets_the_same_204_and_a_reason_is_counted() {
    let mut doors = Doors::open(small()).await;
    let (good, bad) = (sign("whsec_new", BODY), sign("whsec_stranger", BODY));
    for (headers, reason) in [
        (vec![], Reason::NoSignature),
        (vec![("x-nexa-signature", "sha256=nothex".to_owned())], Reason::Malformed),
        (vec![("x-nexa-signature", good[..good.len() - 2].to_owned())], Reason::Malformed),
        (vec![("x-nexa-signature", good.clone()), ("X-Nexa-Signature", good.clone())], Reason::Repeated),
        (vec![("x-nexa-signature", bad.clone())], Reason::Mismatch),
        (vec![("x-nexa-signature", bad), ("content-encoding", "gzip".to_owned())], Reason::ContentEncoding),
    ] {
        let request = Req { line: "/tap/billing", headers, body: BODY };
        assert_eq!(doors.status(&request).await, 204);
        assert_eq!(doors.reason().await, (Door::Tap, reason));
    }
    doors.heard_nothing().await;
}

#[tokio::test]
async fn a_name_that_is_not_configured_gets_204_from_the_tap_and_is_not_counted() {
    let mut doors = Doors::open(small()).await;
    let request = Req::post("/tap/nobody", BODY).with("x-nexa-signature", sign("whsec_new", BODY));
    assert_eq!(doors.status(&request).await, 204);
    assert_eq!(doors.status(&Req::post("/tap/nobody", &[b'x'; 1001])).await, 413);
    doors.heard_nothing().await;
}

#[tokio::test]
async fn a_body_over_the_cap_is_413_by_its_announced_length_before_any_of_it_is_sent() {
    let mut doors = Doors::open(small()).await;
    let mut wire = doors.connect().await;
    wire.write(format!("{}Content-Length: 1001\r\n\r\n", Req::post("/tap/billing", b"").head()).as_bytes()).await;
    assert_eq!(status(&wire.head().await), 413);
    assert_eq!(doors.reason().await, (Door::Tap, Reason::TooLarge));
}

#[tokio::test]
async fn a_body_over_the_cap_is_413_in_chunks_too_and_one_at_the_cap_is_not() {
    let mut doors = Doors::open(small()).await;
    let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", Req::post("/tap/billing", b"").head());
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    for (chunks, expected, reason) in [(2, 204, Reason::NoSignature), (3, 413, Reason::TooLarge)] {
        let mut wire = doors.connect().await;
        wire.write(format!("{head}{}0\r\n\r\n", chunk.repeat(chunks)).as_bytes()).await;
        assert_eq!(status(&wire.head().await), expected);
        assert_eq!(doors.reason().await, (Door::Tap, reason));
    }
}

#[tokio::test]
async fn a_signature_over_chunks_is_checked_over_their_content() {
    let mut doors = Doors::open(small()).await;
    let request = Req::post("/tap/billing", b"").with("x-nexa-signature", sign("whsec_new", BODY));
    let (first, second) = BODY.split_at(7);
    let mut message = format!("{}Transfer-Encoding: chunked\r\n\r\n", request.head()).into_bytes();
    for part in [first, second] {
        message.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        message.extend_from_slice(part);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    let mut wire = doors.connect().await;
    wire.write(&message).await;
    assert_eq!(status(&wire.rest().await), 204);
    assert_eq!(doors.sighting().await.kid, kid("k_new"));
}

#[tokio::test]
async fn a_large_body_is_checked_after_the_answer_and_before_the_end() {
    let mut doors = Doors::open(DoorSettings::default()).await;
    let body = vec![b'x'; 3 << 20];
    let request = Req::post("/tap/billing", &body).with("x-nexa-signature", sign("whsec_new", &body));
    assert_eq!(doors.status(&request).await, 204);
    doors.stop().await;
    assert_eq!(doors.sightings.try_recv().expect("was waited for").facts.length, body.len());
}

#[tokio::test]
async fn a_sender_that_does_not_finish_its_header_is_cut_off() {
    let doors = Doors::open(hasty()).await;
    for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "POST /tap/billing HTTP/1.1\r\nHost: doors\r\nX-Sl"] {
        let mut wire = doors.connect().await;
        wire.write(beginning.as_bytes()).await;
        let answer = wire.rest().await;
        assert!(answer.is_empty() || status(&answer) == 408, "{beginning:?}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_that_goes_idle_is_closed() {
    let doors = Doors::open(hasty()).await;
    let mut wire = doors.connect().await;
    let request = String::from_utf8(Req::post("/tap/nobody", BODY).bytes()).expect("text").replace("Connection: close\r\n", "");
    wire.write(request.as_bytes()).await;
    assert_eq!(status(&wire.head().await), 204);
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_sender_that_does_not_finish_its_body_gets_408() {
    let mut doors = Doors::open(hasty()).await;
    let mut wire = doors.connect().await;
    wire.write(format!("{}Content-Length: 10\r\n\r\n123", Req::post("/tap/billing", b"").head()).as_bytes()).await;
    assert_eq!(status(&wire.rest().await), 408);
    assert_eq!(doors.reason().await, (Door::Tap, Reason::Incomplete));
}

#[tokio::test]
async fn a_delivery_that_is_cut_off_is_no_evidence() {
    let mut doors = Doors::open(small()).await;
    let request = Req::post("/tap/billing", BODY).with("x-nexa-signature", sign("whsec_new", BODY)).bytes();
    let mut wire = doors.connect().await;
    wire.write(&request[..request.len() - 1]).await;
    drop(wire);
    assert_eq!(doors.reason().await, (Door::Tap, Reason::Incomplete));
    doors.heard_nothing().await;
}

#[tokio::test]
async fn a_sender_that_waits_for_100_continue_gets_it() {
    let mut doors = Doors::open(small()).await;
    let request =
        Req::post("/tap/billing", BODY).with("x-nexa-signature", sign("whsec_new", BODY)).with("Expect", "100-continue");
    let mut wire = doors.connect().await;
    wire.write(format!("{}Content-Length: {}\r\n\r\n", request.head(), BODY.len()).as_bytes()).await;
    assert_eq!(status(&wire.head().await), 100);
    wire.write(BODY).await;
    assert_eq!(status(&wire.rest().await), 204);
    assert_eq!(doors.sighting().await.kid, kid("k_new"));
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_too() {
    let mut doors = Doors::open(small()).await;
    let stream = TcpStream::connect(doors.addr).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("handshake");
    let driver = tokio::spawn(connection);
    for (body, expected) in [(BODY.to_vec(), 204), (vec![b'x'; 1001], 413), (BODY.to_vec(), 204)] {
        let request = http::Request::post(format!("http://{}/tap/billing", doors.addr))
            .header("x-nexa-signature", sign("whsec_new", BODY))
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), expected);
        let _ = answer.into_body().collect().await;
    }
    assert_eq!(doors.sighting().await.kid, kid("k_new"));
    assert_eq!(doors.sighting().await.kid, kid("k_new"));
    doors.stop().await;
    let _ = timeout(PATIENCE, driver).await.expect("the server says goodbye");
}

#[tokio::test]
async fn a_connection_over_the_cap_is_told_to_come_back() {
    let doors = Doors::open(DoorSettings { max_connections: 1, ..small() }).await;
    let mut first = doors.connect().await;
    first.write(b"POST /tap/billing HTTP/1.1\r\n").await;
    let request = Req::post("/tap/billing", BODY);
    let answer = doors.exchange(&request).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("Retry-After: 1\r\n"));
    drop(first);
    timeout(PATIENCE, async { while doors.status(&request).await != 204 {} }).await.expect("its place is free again");
}

#[tokio::test]
async fn a_request_over_the_cap_is_told_to_come_back() {
    let doors = Doors::open(DoorSettings { max_in_flight: 1, ..small() }).await;
    let request = Req::post("/tap/billing", b"").with("Expect", "100-continue");
    let mut first = doors.connect().await;
    first.write(format!("{}Content-Length: 4\r\n\r\n", request.head()).as_bytes()).await;
    assert_eq!(status(&first.head().await), 100, "it is being read");
    let answer = doors.exchange(&Req::post("/tap/billing", BODY)).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("retry-after: 1\r\n"));
    first.write(b"body").await;
    assert_eq!(status(&first.rest().await), 204);
    assert_eq!(doors.status(&Req::post("/tap/billing", BODY)).await, 204);
}

#[tokio::test]
async fn the_memory_of_all_bodies_together_is_bounded() {
    let doors = Doors::open(DoorSettings { max_buffered: 1500, ..small() }).await;
    let mut first = doors.connect().await;
    let head = Req::post("/tap/billing", b"").with("Expect", "100-continue").head();
    first.write(format!("{head}Content-Length: 1000\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&first.head().await), 100);
    first.write(&[b'x'; 999]).await;
    let second = Req::post("/tap/billing", &[b'y'; 900]);
    timeout(PATIENCE, async { while doors.status(&second).await != 503 {} }).await.expect("both do not fit");
    first.write(b"x").await;
    assert_eq!(status(&first.rest().await), 204);
    assert_eq!(doors.status(&second).await, 204);
}

#[tokio::test]
async fn a_tap_with_a_token_ignores_copies_without_it_and_does_not_show_it() {
    let mut doors = Doors::open_with(small(), Some("tap-token")).await;
    let request = || Req::post("/tap/billing", BODY).with("x-nexa-signature", sign("whsec_new", BODY));
    for bad in [request(), request().with("Authorization", "Bearer wrong"), request().with("Authorization", "Basic tap-token")] {
        assert_eq!(doors.status(&bad).await, 204);
        assert_eq!(doors.reason().await, (Door::Tap, Reason::BadToken));
    }
    assert_eq!(doors.status(&request().with("Authorization", "bearer tap-token")).await, 204);
    assert_eq!(doors.sighting().await.kid, kid("k_new"));
    doors.heard_nothing().await;
}

fn report(status: u16) -> Vec<u8> {
    let digest = hex::encode(body_sha256(BODY));
    format!(r#"{{"kid":"k_new","body_sha256":"{digest}","status":{status},"replica":"web-1"}}"#).into_bytes()
}

#[tokio::test]
async fn a_report_is_202_and_the_same_again_is_202_too() {
    let mut doors = Doors::open_with(small(), Some("report-token")).await;
    for (status, accepted) in [(200, Some(true)), (200, Some(true)), (401, Some(false)), (403, Some(false)), (500, None)] {
        let body = report(status);
        let request = Req::post("/report/billing", &body).with("Authorization", "Bearer report-token");
        assert_eq!(doors.status(&request).await, 202);
        let seen = doors.sighting().await;
        assert_eq!((seen.webhook.as_str(), seen.door, seen.kid), ("billing", Door::Report, kid("k_new")));
        assert_eq!((seen.body_sha256, seen.accepted, seen.status), (body_sha256(BODY), accepted, Some(status)));
        assert_eq!((seen.replica.as_deref(), seen.standing), (Some("web-1"), Some(Standing::Accepted)));
    }
    doors.heard_nothing().await;
}

#[tokio::test]
async fn a_report_without_the_token_is_401_and_for_no_webhook_404() {
    let mut doors = Doors::open_with(small(), Some("report-token")).await;
    let body = report(200);
    let answer = doors.exchange(&Req::post("/report/billing", &body)).await;
    assert_eq!(status(&answer), 401);
    assert!(answer.contains("www-authenticate: Bearer\r\n"));
    assert_eq!(doors.reason().await, (Door::Report, Reason::BadToken));
    let wrong = Req::post("/report/billing", &body).with("Authorization", "Bearer report-tokem");
    assert_eq!(doors.status(&wrong).await, 401);
    assert_eq!(doors.reason().await, (Door::Report, Reason::BadToken));
    let twice = wrong.with("Authorization", "Bearer report-token");
    assert_eq!(doors.status(&twice).await, 401);
    assert_eq!(doors.reason().await, (Door::Report, Reason::BadToken));
    assert_eq!(doors.status(&Req::post("/report/nobody", &body)).await, 404);
    doors.heard_nothing().await;
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_400_and_names_the_field() {
    let mut doors = Doors::open(small()).await;
    let answer = doors.exchange(&Req::post("/report/billing", br#"{"kid":"k_new","body_sha256":"zz"}"#)).await;
    assert_eq!(status(&answer), 400);
    assert!(answer.contains("`body_sha256` must be"), "{answer}");
    assert_eq!(doors.reason().await, (Door::Report, Reason::BadReport));
    assert_eq!(doors.status(&Req::post("/report/billing", &[b' '; 1001])).await, 413);
    assert_eq!(doors.reason().await, (Door::Report, Reason::TooLarge));
}

#[tokio::test]
async fn a_report_of_an_unknown_key_is_202_and_counted_and_one_without_room_503() {
    let mut doors = Doors::open(small()).await;
    let unknown = String::from_utf8(report(200)).expect("text").replace("k_new", "k_other");
    assert_eq!(doors.status(&Req::post("/report/billing", unknown.as_bytes())).await, 202);
    assert_eq!(doors.reason().await, (Door::Report, Reason::UnknownKid));
    doors.clerk.full.store(true, Ordering::SeqCst);
    let body = report(200);
    let answer = doors.exchange(&Req::post("/report/billing", &body)).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("retry-after: 1\r\n"));
    doors.heard_nothing().await;
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let doors = Doors::open(small()).await;
    for (line, expected) in
        [("GET /tap/billing", 405), ("PUT /report/billing", 405), ("POST /", 404), ("POST /tap", 404), ("GET /metrics", 404)]
    {
        assert_eq!(doors.status(&Req { line, headers: Vec::new(), body: b"" }).await, expected, "{line}");
    }
}

#[tokio::test]
async fn what_is_under_way_at_shutdown_is_finished_and_nothing_new_is_let_in() {
    let mut doors = Doors::open(small()).await;
    let request =
        Req::post("/tap/billing", BODY).with("x-nexa-signature", sign("whsec_new", BODY)).with("Expect", "100-continue");
    let mut wire = doors.connect().await;
    wire.write(format!("{}Content-Length: {}\r\n\r\n", request.head(), BODY.len()).as_bytes()).await;
    assert_eq!(status(&wire.head().await), 100);
    doors.shutdown.cancel();
    timeout(PATIENCE, async { while TcpStream::connect(doors.addr).await.is_ok() {} }).await.expect("the listener closes");
    wire.write(BODY).await;
    assert_eq!(status(&wire.rest().await), 204);
    doors.stop().await;
    assert_eq!(doors.sightings.try_recv().expect("seen").kid, kid("k_new"));
}

#[tokio::test]
async fn what_does_not_finish_at_shutdown_is_dropped_at_the_deadline() {
    let mut doors = Doors::open(DoorSettings { drain: Duration::from_millis(100), ..small() }).await;
    let mut wire = doors.connect().await;
    let head = Req::post("/tap/billing", b"").with("Expect", "100-continue").head();
    wire.write(format!("{head}Content-Length: 10\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&wire.head().await), 100);
    doors.heard_nothing().await;
    assert_eq!(wire.rest().await, "");
}
