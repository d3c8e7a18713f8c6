//! What is passed on, and how.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hookturn::{
    config::Door,
    evidence::{self, Desk, Facts, GatewayCounts, Limits, ProxyAnswers, Reason, Sighting},
    secret::{Keyring, Kid, Secret, Standing, signature},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::stage::{BODY, Cast, Stage, secret, sign, stage, write_keys};

#[tokio::test]
async fn the_consumer_gets_the_same_bytes_and_the_sender_gets_the_consumers_answer() {
    let stage = stage().await;
    stage.consumer.answers(418, Duration::ZERO);
    let bytes = b"\xff\x00 not json \r\n";
    let answer = stage
        .request("PUT", "/hook/billing/a%2Fb/c?x=1&y=%20")
        .header("x-nexa-signature", sign("new", bytes))
        .header("content-type", "application/x-odd")
        .header("content-encoding", "identity")
        .header("host", "hooks.example")
        .header("x-private", "1")
        .header("connection", "x-private")
        .header("x-hookturn-kid", "forged")
        .header("x_hookturn_kid", "forged")
        .body(bytes.to_vec())
        .send()
        .await
        .expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["x-consumer"].as_bytes()), (418, &b"yes"[..]));
    assert_eq!(answer.headers()["content-type"], "text/x-answer");
    assert_eq!(answer.text().await.expect("text"), "the consumer's answer");
    let got = &stage.consumer.got()[0];
    assert_eq!((got.method.as_str(), got.target.as_str(), got.body.as_slice()), ("PUT", "/in/a%2Fb/c?x=1&y=%20", &bytes[..]));
    let header = |name: &str| got.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("x-nexa-signature"), Some(sign("new", bytes).as_str()));
    assert_eq!(header("content-type"), Some("application/x-odd"));
    assert_eq!(header("content-encoding"), Some("identity"));
    assert_eq!(header("host"), Some("hooks.example"));
    assert_eq!(header("content-length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(got.headers.get_all("x-hookturn-kid").iter().collect::<Vec<_>>(), ["new"]);
    assert_eq!((header("x_hookturn_kid"), header("x-private")), (None, None));
}

#[tokio::test]
async fn bodies_of_any_size_up_to_the_cap_arrive_whole() {
    let stage = Stage::with(Cast { limit: Some(|limits| limits.max_body = 3 << 20), ..Cast::default() }).await;
    for length in [0, 1, 1024, 65_537, 1 << 20, 3 << 20] {
        let body: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8).collect();
        assert_eq!(stage.status("now", &body).await, 204, "{length}");
        assert!(stage.consumer.got().last().is_some_and(|got| got.body == body), "{length}");
    }
    let chunked = "POST /hook/billing HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    let request = format!("{chunked}x-dialnexa-signature: {}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n", sign("now", b"{}"));
    assert!(stage.raw(request.as_bytes()).await.starts_with("HTTP/1.1 204 "));
    assert_eq!(stage.consumer.got().last().map(|got| got.body.clone()), Some(b"{}".to_vec()));
}

#[tokio::test]
async fn what_no_accepted_key_signed_is_not_passed_on_and_told_nothing() {
    let stage = stage().await;
    let refused = |answer: reqwest::Response| async move { (answer.status().as_u16(), answer.text().await.expect("text")) };
    for request in [
        stage.post("stranger", BODY),
        stage.post("now", b"other").body(BODY),
        stage.request("POST", "/hook/billing").body(BODY),
        stage.post("now", BODY).header("x-nexa-signature", sign("now", BODY)),
    ] {
        assert_eq!(refused(request.send().await.expect("answer")).await, (401, String::new()));
    }
    assert_eq!(stage.request("POST", "/hook/nobody").body(BODY).send().await.expect("answer").status(), 404);
    assert_eq!(stage.request("GET", "/").send().await.expect("answer").status(), 404);
    assert!(stage.consumer.got().is_empty());
}

#[tokio::test]
async fn an_observer_passes_everything_on_and_names_no_key_that_did_not_verify() {
    let stage = Stage::with(Cast { gateway: "mode = \"observe\"", ..Cast::default() }).await;
    assert_eq!(stage.post("stranger", BODY).header("x-hookturn-kid", "now").send().await.expect("answer").status(), 204);
    assert_eq!(stage.status("now", BODY).await, 204);
    let kids: Vec<_> = stage.consumer.got().iter().map(|got| got.headers.get("x-hookturn-kid").cloned()).collect();
    assert_eq!(kids, [None, Some("now".parse().expect("value"))]);
}

#[tokio::test]
async fn a_consumer_with_one_secret_for_ever_gets_every_delivery_signed_with_it() {
    let stage = Stage::with(Cast { gateway: "mode = \"observe\", resign = { file = \"inner\" }", ..Cast::default() }).await;
    let inner = Secret::parse("inner-secret").expect("secret");
    for key in ["now", "new", "stranger"] {
        assert_eq!(stage.status(key, BODY).await, 204);
    }
    let signatures: Vec<_> = stage.consumer.got().iter().map(|got| got.headers["x-nexa-signature"].clone()).collect();
    let (right, stranger) = (signature::sign(&inner, BODY), sign("stranger", BODY));
    assert_eq!(signatures, [right.as_str(), right.as_str(), stranger.as_str()], "what did not verify is never signed");
}

#[tokio::test]
async fn keys_follow_the_file_and_a_broken_file_changes_nothing() {
    let stage = stage().await;
    stage.told(|status| status["generation"] == 7).await;
    write_keys(&stage.keystore(), 8, &[("new", "current")]);
    stage.told(|status| status["generation"] == 8).await;
    assert_eq!((stage.status("now", BODY).await, stage.status("new", BODY).await), (401, 204));
    let status = stage.told(|status| status["keys"][0]["verified"] == 1).await;
    assert_eq!((status["keys"][0]["kid"].as_str(), status["replica"].as_str()), (Some("new"), Some("gateway-1")));
    std::fs::write(stage.keystore(), "{").expect("write");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(stage.status("new", BODY).await, 204);
    stage.shutdown.cancel();
    stage.served.await.expect("served");
    assert!(!stage.dir.path().join("secrets.json.status/gateway-1.json").exists(), "it has left");
}

#[tokio::test]
async fn without_any_keys_it_is_not_healthy_and_turns_deliveries_away_for_now() {
    let stage = Stage::with(Cast { no_keys: true, ..Cast::default() }).await;
    let health = async || stage.request("GET", "/healthz").send().await.expect("answer").status().as_u16();
    let answer = stage.post("now", BODY).send().await.expect("answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    assert_eq!(health().await, 503);
    write_keys(&stage.keystore(), 1, &[("now", "current")]);
    let status = stage.told(|status| status["generation"] == 1).await;
    assert_eq!(status["lost"], 1);
    assert_eq!((health().await, stage.status("now", BODY).await), (200, 204));
}

/// A daemon's desk.
#[derive(Default)]
struct Book(Mutex<(Vec<Sighting>, Vec<GatewayCounts>)>);

impl Desk for Book {
    fn keyring(&self, _: &str) -> Option<Arc<Keyring>> {
        let key = |name: &str| (Kid::parse(name).expect("kid"), secret(name), Standing::Accepted);
        Some(Arc::new(Keyring::new(vec![key("now"), key("new")])))
    }
    fn report_token(&self, _: &str) -> Option<Secret> {
        None
    }
    fn tap_token(&self, _: &str) -> Option<Secret> {
        None
    }
    fn sighted(&self, sighting: Sighting) -> bool {
        self.0.lock().expect("lock").0.push(sighting);
        true
    }
    fn unverified(&self, _: &str, _: Door, _: Reason, _: &Facts) {}
    fn gateway_counts(&self, _: &str, counts: GatewayCounts) {
        self.0.lock().expect("lock").1.push(counts);
    }
}

#[tokio::test]
async fn the_daemon_hears_what_the_consumer_accepted_and_refused_also_after_it_was_away() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let daemon = taken.local_addr().expect("address");
    drop(taken);
    let stage = Stage::with(Cast { daemon: Some(daemon), ..Cast::default() }).await;
    for (key, status) in [("now", 200), ("new", 401), ("new", 500), ("stranger", 200)] {
        stage.consumer.answers(status, Duration::ZERO);
        stage.status(key, BODY).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Nobody has listened until now.
    let book = Arc::new(Book::default());
    let listener = TcpListener::bind(daemon).await.expect("bind");
    tokio::spawn(evidence::serve(
        listener,
        Limits::new(1 << 20),
        book.clone(),
        ProxyAnswers::default(),
        CancellationToken::new(),
    ));
    for _ in 0..600 {
        let told = {
            let book = book.0.lock().expect("lock");
            book.0.len() >= 2 && book.1.last().is_some_and(|counts| counts.unverified == 1)
        };
        if told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (sightings, counts) = std::mem::take(&mut *book.0.lock().expect("lock"));
    let seen: Vec<_> = sightings.iter().map(|s| (s.kid.as_str(), s.accepted, s.status, s.door)).collect();
    assert_eq!(seen, [("now", Some(true), Some(200), Door::Gateway), ("new", Some(false), Some(401), Door::Gateway)]);
    assert_eq!(sightings[0].facts.event.as_deref(), Some("call.completed"));
    assert_eq!(counts.last().map(|counts| (counts.lost, counts.unverified)), Some((0, 1)));
}
