//! What comes through the doors `/tap/{name}` and `/report/{name}`, over real sockets.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hookturn::{
    config::Door,
    evidence::{Desk, Dispatch, Facts, GatewayCounts, Limits, PROOF, Passed, ProxyAnswers, Reason, Sighting, prove, serve},
    secret::{Keyring, Kid, Secret, Standing, signature::sign},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const MAX_BODY: usize = 4096;

/// Two webhooks: `open` without tokens, `guarded` with both.
#[derive(Default)]
struct Book {
    sightings: Mutex<Vec<Sighting>>,
    unverified: Mutex<Vec<(String, Door, Reason)>>,
    counts: Mutex<Vec<GatewayCounts>>,
    full: bool,
}

impl Desk for Book {
    fn keyring(&self, name: &str) -> Option<Arc<Keyring>> {
        let key = |name: &str, standing| (kid(name), secret(name), standing);
        let keys = vec![key("gone", Standing::Retired), key("now", Standing::Accepted), key("new", Standing::Accepted)];
        matches!(name, "open" | "guarded").then(|| Arc::new(Keyring::new(keys)))
    }

    fn report_token(&self, name: &str) -> Option<Secret> {
        (name == "guarded").then(|| secret("report"))
    }

    fn tap_token(&self, name: &str) -> Option<Secret> {
        (name == "guarded").then(|| secret("tap"))
    }

    fn sighted(&self, sighting: Sighting) -> bool {
        if !self.full {
            self.sightings.lock().expect("lock").push(sighting);
        }
        !self.full
    }

    fn unverified(&self, name: &str, door: Door, reason: Reason, _: &Facts) {
        self.unverified.lock().expect("lock").push((name.to_owned(), door, reason));
    }

    fn gateway_counts(&self, _: &str, counts: GatewayCounts) {
        self.counts.lock().expect("lock").push(counts);
    }
}

struct Doors {
    address: SocketAddr,
    book: Arc<Book>,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

async fn open() -> Doors {
    open_with(Book::default(), Limits::new(MAX_BODY)).await
}

async fn open_with(book: Book, settings: Limits) -> Doors {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (book, shutdown) = (Arc::new(book), CancellationToken::new());
    let served = tokio::spawn(serve(listener, settings, book.clone(), ProxyAnswers::default(), shutdown.clone()));
    Doors { address, book, shutdown, served }
}

impl Doors {
    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        client.post(format!("http://{}{path}", self.address))
    }

    async fn tap(&self, headers: &[(&str, String)], body: &[u8]) -> u16 {
        let mut post = self.post("/tap/open").body(body.to_vec());
        for (name, value) in headers {
            post = post.header(*name, value);
        }
        post.send().await.expect("answer").status().as_u16()
    }

    /// Status and text.
    async fn report(&self, report: serde_json::Value) -> (u16, String) {
        let answer = self.post("/report/open").json(&report).send().await.expect("answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    fn sightings(&self) -> Vec<Sighting> {
        self.book.sightings.lock().expect("lock").clone()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.book.unverified.lock().expect("lock").iter().map(|(_, _, reason)| *reason).collect()
    }

    /// Writes bytes as they are, closes the sending side if asked to, and returns all that comes back.
    async fn raw(&self, request: &[u8], close: bool) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(request).await.expect("write");
        if close {
            stream.shutdown().await.expect("shutdown");
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn kid(name: &str) -> Kid {
    Kid::parse(name).expect("kid")
}

fn secret(name: &str) -> Secret {
    Secret::parse(&format!("whsec_{name}")).expect("secret")
}

fn by(name: &str, body: &[u8]) -> String {
    sign(&secret(name), body)
}

fn said() -> serde_json::Value {
    serde_json::json!({"kid": "new", "body_sha256": "ab".repeat(32), "status": 200, "replica": "web-1"})
}

const BODY: &[u8] = br#"{"event":"call.completed","n":1}"#;

#[tokio::test]
async fn a_signed_delivery_at_the_tap_is_sighted_and_nothing_is_said_of_the_consumer() {
    let doors = open().await;
    let agent = ("user-agent", "Dial\tNexa".to_owned());
    assert_eq!(doors.tap(&[("x-nexa-signature", by("new", BODY)), agent], BODY).await, 204);
    let facts = Facts {
        peer: Some([127, 0, 0, 1].into()),
        user_agent: Some("DialNexa".to_owned()),
        event: Some("call.completed".to_owned()),
        header: Some("x-nexa-signature"),
        prefixed: true,
        length: BODY.len(),
    };
    let expected = Sighting {
        webhook: "open".to_owned(),
        door: Door::Tap,
        kid: kid("new"),
        body_sha256: Sha256::digest(BODY).into(),
        accepted: None,
        status: None,
        replica: None,
        facts,
    };
    assert_eq!(doors.sightings(), [expected]);
}

#[tokio::test]
async fn a_long_body_is_looked_at_before_it_is_answered() {
    let doors = open_with(Book::default(), Limits::new(1 << 20)).await;
    let body = vec![b'x'; 1 << 20];
    assert_eq!(doors.tap(&[("x-nexa-signature", by("new", &body))], &body).await, 204);
    assert_eq!(doors.sightings().iter().map(|seen| seen.facts.length).collect::<Vec<_>>(), [body.len()]);
}

#[tokio::test]
async fn a_retired_key_is_named_too() {
    let doors = open().await;
    assert_eq!(doors.tap(&[("x-dialnexa-signature", by("gone", BODY))], BODY).await, 204);
    assert_eq!(doors.sightings().iter().map(|s| s.kid).collect::<Vec<_>>(), [kid("gone")]);
}

#[tokio::test]
async fn what_does_not_verify_gets_the_same_answer_and_a_reason() {
    let doors = open().await;
    let name = "x-nexa-signature";
    let zipped = ("content-encoding", "gzip".to_owned());
    assert_eq!(doors.tap(&[], BODY).await, 204);
    assert_eq!(doors.tap(&[(name, by("stranger", BODY))], BODY).await, 204);
    assert_eq!(doors.tap(&[(name, by("new", b"other"))], BODY).await, 204);
    assert_eq!(doors.tap(&[(name, by("new", BODY)), (name, by("new", BODY))], BODY).await, 204);
    assert_eq!(doors.tap(&[(name, format!("sha256={}", "zz".repeat(32)))], BODY).await, 204);
    assert_eq!(doors.tap(&[(name, by("stranger", BODY)), zipped], BODY).await, 204);
    use Reason::{ContentEncoding, Malformed, Mismatch, NoSignature, Repeated};
    assert_eq!(doors.reasons(), [NoSignature, Mismatch, Mismatch, Repeated, Malformed, ContentEncoding]);
    assert_eq!(doors.sightings(), []);
}

#[tokio::test]
async fn of_two_names_either_may_match() {
    let doors = open().await;
    let headers = [("x-nexa-signature", by("stranger", BODY)), ("x-dialnexa-signature", by("now", BODY))];
    assert_eq!(doors.tap(&headers, BODY).await, 204);
    let sightings = doors.sightings();
    assert_eq!((sightings[0].kid, sightings[0].facts.header), (kid("now"), Some("x-dialnexa-signature")));
}

#[tokio::test]
async fn a_name_that_is_not_configured_cannot_be_told_from_one_that_is() {
    let doors = open().await;
    for path in ["/tap/nobody", "/tap/%ff", "/tap/a%2Fb"] {
        let answer = doors.post(path).header("x-nexa-signature", by("new", BODY)).body(BODY).send().await.expect("answer");
        assert_eq!(answer.status(), 204, "{path}");
    }
    assert_eq!((doors.sightings(), doors.reasons()), (vec![], vec![]));
}

#[tokio::test]
async fn an_oversized_body_is_refused_by_its_announced_length_before_it_is_sent() {
    let doors = open().await;
    for path in ["/tap/open", "/tap/nobody"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
        let answer = doors.raw(head.as_bytes(), false).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn an_oversized_body_in_chunks_is_refused_when_it_passes_the_cap_and_one_at_the_cap_is_taken() {
    let doors = open().await;
    let chunked = |length: usize| {
        let body = vec![b'x'; length];
        let sign = by("new", &body);
        let head = format!("POST /tap/open HTTP/1.1\r\nHost: h\r\nx-nexa-signature: {sign}\r\nTransfer-Encoding: chunked\r\n");
        let mut request = format!("{head}Connection: close\r\n\r\n").into_bytes();
        for chunk in body.chunks(1000) {
            request.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    };
    let answer = doors.raw(&chunked(MAX_BODY + 1), false).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(doors.sightings(), []);
    let answer = doors.raw(&chunked(MAX_BODY), false).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_eq!(doors.sightings().len(), 1);
}

#[tokio::test]
async fn a_delivery_that_is_cut_off_is_no_evidence_even_where_the_part_is_signed() {
    let doors = open().await;
    let sign = by("new", BODY);
    let head = format!("POST /tap/open HTTP/1.1\r\nHost: h\r\nx-nexa-signature: {sign}\r\n");
    let mut by_length = format!("{head}Content-Length: {}\r\n\r\n", BODY.len() + 1).into_bytes();
    by_length.extend(BODY);
    doors.raw(&by_length, true).await;
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", BODY.len()).into_bytes();
    chunked.extend(BODY);
    chunked.extend(b"\r\n");
    doors.raw(&chunked, true).await;
    assert_eq!((doors.sightings(), doors.reasons()), (vec![], vec![]));
}

#[tokio::test]
async fn a_slow_head_a_slow_body_and_a_silent_connection_are_given_up() {
    let mut settings = Limits::new(MAX_BODY);
    settings.header_timeout = Duration::from_millis(200);
    settings.body_timeout = Duration::from_millis(200);
    let doors = open_with(Book::default(), settings).await;
    assert_eq!(doors.raw(b"", false).await, "");
    assert_eq!(doors.raw(b"P", false).await, "", "could be either protocol still");
    doors.raw(b"POST /tap/open HTTP/1.1\r\nHost:", false).await;
    let answer = doors.raw(b"POST /tap/open HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{", false).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_back() {
    let mut settings = Limits::new(MAX_BODY);
    settings.max_in_flight = 1;
    let doors = open_with(Book::default(), settings).await;
    let mut slow = TcpStream::connect(doors.address).await.expect("connect");
    let head = b"POST /tap/open HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    slow.write_all(head).await.expect("write");
    // The server asks for the body once it reads it: then the place is taken.
    let mut go_on = [0u8; 25];
    slow.read_exact(&mut go_on).await.expect("100 Continue");
    let answer = doors.post("/tap/open").body("{}").send().await.expect("answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().expect("value")));
    slow.write_all(b"{}").await.expect("write");
    let mut status = [0u8; 12];
    slow.read_exact(&mut status).await.expect("answer");
    assert_eq!(&status, b"HTTP/1.1 204");
}

#[tokio::test]
async fn a_full_inbox_is_kept_from_a_mirror_and_told_to_a_reporter() {
    let doors = open_with(Book { full: true, ..Book::default() }, Limits::new(MAX_BODY)).await;
    assert_eq!(doors.tap(&[("x-nexa-signature", by("new", BODY))], BODY).await, 204);
    let answer = doors.post("/report/open").json(&said()).send().await.expect("answer");
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_report_is_the_consumers_word_for_what_it_answered() {
    let doors = open().await;
    for status in [200, 401, 500] {
        let mut report = said();
        report["status"] = status.into();
        assert_eq!(doors.report(report).await.0, 202);
    }
    assert_eq!(doors.report(said()).await.0, 202, "the same again");
    let sightings = doors.sightings();
    let accepted: Vec<_> = sightings.iter().map(|s| (s.status, s.accepted)).collect();
    assert_eq!(accepted, [(Some(200), Some(true)), (Some(401), Some(false)), (Some(500), None), (Some(200), Some(true))]);
    let first = &sightings[0];
    assert_eq!((first.kid, first.body_sha256, first.replica.as_deref()), (kid("new"), [0xab; 32], Some("web-1")));
    assert_eq!(first.door, Door::Report);
}

#[tokio::test]
async fn a_dispatch_of_the_gateway_is_taken_with_a_proof_under_an_accepted_key_only() {
    let doors = open().await;
    let counts = GatewayCounts { replica: "gateway-1".to_owned(), started_at: "now".to_owned(), lost: 3, unverified: 0 };
    let passed = |kid: &str, status| Passed {
        kid: self::kid(kid),
        body_sha256: "ab".repeat(32),
        status,
        header: "x-nexa-signature".to_owned(),
        prefixed: true,
        event: None,
        user_agent: None,
        peer: None,
        length: 2,
    };
    let dispatch =
        Dispatch { counts: counts.clone(), passed: vec![passed("new", 204), passed("now", 401), passed("nobody", 200)] };
    let body = serde_json::to_vec(&dispatch).expect("JSON");
    let send = async |proof: String| {
        doors.post("/gateway/open").header(PROOF, proof).body(body.clone()).send().await.expect("answer").status()
    };
    for wrong in ["", "new", "nobody ab", &prove(kid("gone"), &secret("gone"), &body), &prove(kid("new"), &secret("now"), &body)]
    {
        assert_eq!(send(wrong.to_owned()).await, 401, "{wrong}");
    }
    assert_eq!(doors.sightings(), []);
    assert_eq!(send(prove(kid("now"), &secret("now"), &body)).await, 202);
    let seen: Vec<_> = doors.sightings().into_iter().map(|s| (s.door, s.kid, s.accepted, s.replica)).collect();
    let from = |kid: &str, accepted| (Door::Gateway, self::kid(kid), accepted, Some("gateway-1".to_owned()));
    assert_eq!(seen, [from("new", Some(true)), from("now", Some(false))]);
    assert_eq!((doors.reasons(), doors.book.counts.lock().expect("lock").clone()), (vec![Reason::UnknownKid], vec![counts]));
}

#[tokio::test]
async fn more_connections_than_there_are_places_for_are_told_to_come_back() {
    let mut settings = Limits::new(MAX_BODY);
    settings.max_connections = 2;
    let doors = open_with(Book::default(), settings).await;
    let _idle =
        [TcpStream::connect(doors.address).await.expect("connect"), TcpStream::connect(doors.address).await.expect("connect")];
    let answer = doors.raw(b"POST /tap/open HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", false).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_there_is_and_none_for_what_was_only_announced() {
    let mut settings = Limits::new(1 << 20);
    settings.max_memory = 100_000;
    let doors = open_with(Book::default(), settings).await;
    let mut announced = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(doors.address).await.expect("connect");
        let head = b"POST /tap/open HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
        stream.write_all(head).await.expect("write");
        let mut go_on = [0u8; 25];
        stream.read_exact(&mut go_on).await.expect("100 Continue");
        announced.push(stream);
    }
    assert_eq!(doors.tap(&[], &[b'x'; 50_000]).await, 204);
    let answer = doors.post("/tap/open").body(vec![b'x'; 200_000]).send().await;
    // The answer may meet a sender that is still sending.
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 503);
    }
    assert_eq!(doors.tap(&[], &[b'x'; 50_000]).await, 204, "what was taken was given back");
}

#[tokio::test]
async fn a_report_that_is_wrong_is_told_where() {
    let doors = open().await;
    let mut report = said();
    report["body_sha256"] = "abc".into();
    let (status, text) = doors.report(report).await;
    assert_eq!(status, 400);
    assert!(text.contains("body_sha256"), "{text}");
    let answer = doors.post("/report/nobody").json(&said()).send().await.expect("answer");
    assert_eq!(answer.status(), 404);
    let answer = doors.post("/report/open").body(vec![b' '; MAX_BODY + 1]).send().await.expect("answer");
    assert_eq!(answer.status(), 413);
    assert_eq!(doors.sightings(), []);
}

#[tokio::test]
async fn a_report_of_an_unknown_key_is_taken_and_is_no_evidence() {
    let doors = open().await;
    let mut report = said();
    report["kid"] = "stranger".into();
    assert_eq!(doors.report(report).await.0, 202);
    assert_eq!((doors.sightings(), doors.reasons()), (vec![], vec![Reason::UnknownKid]));
}

#[tokio::test]
async fn where_a_token_is_configured_nothing_gets_through_without_it() {
    let doors = open().await;
    for (path, right, wrong) in [("/report/guarded", "whsec_report", "whsec_tap"), ("/tap/guarded", "whsec_tap", "whsec_report")]
    {
        let post = || doors.post(path).json(&said()).header("x-nexa-signature", by("new", said().to_string().as_bytes()));
        let status = async |post: reqwest::RequestBuilder| post.send().await.expect("answer").status().as_u16();
        assert_eq!(status(post()).await, 401);
        assert_eq!(status(post().bearer_auth(wrong)).await, 401);
        assert_eq!(status(post().bearer_auth("")).await, 401);
        assert_eq!(status(post().header("authorization", format!("Basic {right}"))).await, 401);
        assert_eq!(status(post().bearer_auth(right).bearer_auth(right)).await, 401, "twice");
        assert_eq!(doors.sightings().len(), usize::from(path.starts_with("/tap")), "{path}");
        assert!(matches!(status(post().header("authorization", format!("bearer {right}"))).await, 202 | 204));
    }
    assert_eq!(doors.sightings().len(), 2);
}

#[tokio::test]
async fn http_2_without_tls_is_spoken() {
    let doors = open().await;
    let stream = TcpStream::connect(doors.address).await.expect("connect");
    let (io, executor) = (hyper_util::rt::TokioIo::new(stream), hyper_util::rt::TokioExecutor::new());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("handshake");
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/tap/open", doors.address))
        .header("x-nexa-signature", by("new", BODY))
        .body(http_body_util::Full::new(bytes::Bytes::from_static(BODY)))
        .expect("request");
    assert_eq!(sender.send_request(request).await.expect("answer").status(), 204);
    assert_eq!(doors.sightings().len(), 1);
}

#[tokio::test]
async fn shutdown_lets_a_request_under_way_finish_and_takes_no_other() {
    let doors = open().await;
    let mut slow = TcpStream::connect(doors.address).await.expect("connect");
    let sign = by("new", b"{}");
    let head = format!("POST /tap/open HTTP/1.1\r\nHost: h\r\nx-nexa-signature: {sign}\r\nExpect: 100-continue\r\n");
    slow.write_all(format!("{head}Content-Length: 2\r\n\r\n").as_bytes()).await.expect("write");
    let mut go_on = [0u8; 25];
    slow.read_exact(&mut go_on).await.expect("100 Continue");
    doors.shutdown.cancel();
    slow.write_all(b"{}").await.expect("write");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("answer");
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    doors.served.await.expect("served");
    assert!(TcpStream::connect(doors.address).await.is_err());
    assert_eq!(doors.book.sightings.lock().expect("lock").len(), 1);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let mut settings = Limits::new(MAX_BODY);
    settings.drain = Duration::from_millis(100);
    let doors = open_with(Book::default(), settings).await;
    let mut slow = TcpStream::connect(doors.address).await.expect("connect");
    slow.write_all(b"POST /tap/open HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await
        .expect("write");
    let mut go_on = [0u8; 25];
    slow.read_exact(&mut go_on).await.expect("100 Continue");
    doors.shutdown.cancel();
    doors.served.await.expect("served");
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}
