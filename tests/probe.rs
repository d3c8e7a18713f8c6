//! What a probe finds out about a replica, against consumers on real sockets.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use hookturn::{
    config::ProbeBody,
    evidence::{Learned, ProbeKeys, ProbeResult, Prober, Verification, plan_bodies, verify},
    rotation::Verdict,
    secret::{Keyring, Kid, Secret, Standing},
};

/// What a consumer does with a delivery, given whether its signature is right and whether its body parses.
type Manners = fn(signed: bool, parses: bool) -> u16;

fn verify_then_parse(signed: bool, parses: bool) -> u16 {
    match (signed, parses) {
        (false, _) => 401,
        (true, false) => 400,
        (true, true) => 200,
    }
}

fn parse_then_verify(signed: bool, parses: bool) -> u16 {
    match (signed, parses) {
        (_, false) => 400,
        (false, true) => 401,
        (true, true) => 204,
    }
}

/// As Debian's `webhook` does.
fn five_hundred_on_mismatch(signed: bool, _: bool) -> u16 {
    if signed { 200 } else { 500 }
}

struct Consumer {
    url: String,
    requests: Arc<Mutex<Vec<HeaderMap>>>,
}

struct Inside {
    keyring: Keyring,
    manners: Manners,
    requests: Arc<Mutex<Vec<HeaderMap>>>,
}

async fn consumer(kids: &[&str], manners: Manners) -> Consumer {
    let keys = kids.iter().map(|name| (kid(name), secret(name), Standing::Accepted)).collect();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::new(Inside { keyring: Keyring::new(keys), manners, requests: requests.clone() });
    let app = Router::new().route("/hook", post(answer)).with_state(inside);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Consumer { url, requests }
}

async fn answer(State(inside): State<Arc<Inside>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signed = matches!(verify(&headers, &body, &inside.keyring), Verification::Matched { .. });
    let parses = serde_json::from_slice::<serde_json::Value>(&body).is_ok();
    inside.requests.lock().expect("lock").push(headers);
    StatusCode::from_u16((inside.manners)(signed, parses)).expect("status")
}

fn kid(name: &str) -> Kid {
    Kid::parse(name).expect("kid")
}

fn secret(name: &str) -> Secret {
    Secret::parse(&format!("whsec_{name}")).expect("secret")
}

/// Before the PATCH: is "new" accepted beside "now"?
async fn before_patch(url: &str, form: ProbeBody) -> ProbeResult {
    let (new, now) = (secret("new"), secret("now"));
    let keys = ProbeKeys { accept: (kid("new"), &new), control: Some((kid("now"), &now)), refuse: Vec::new(), full: true };
    prober().send(url, plan_bodies(form, &keys), None).await
}

/// At the retire: is "new" still accepted, and "now" gone?
async fn at_retire(url: &str) -> ProbeResult {
    let (new, now) = (secret("new"), secret("now"));
    let keys = ProbeKeys { accept: (kid("new"), &new), control: None, refuse: vec![(kid("now"), &now)], full: true };
    prober().send(url, plan_bodies(ProbeBody::Unparseable, &keys), None).await
}

async fn look(url: &str, learned: Option<&Learned>) -> ProbeResult {
    let new = secret("new");
    let keys = ProbeKeys { accept: (kid("new"), &new), control: None, refuse: Vec::new(), full: false };
    prober().send(url, plan_bodies(ProbeBody::Unparseable, &keys), learned).await
}

fn prober() -> Prober {
    Prober::new(Duration::from_secs(10)).expect("prober")
}

fn told(result: &ProbeResult) -> (Verdict, &str) {
    (result.verdict, &result.answers)
}

#[tokio::test]
async fn a_consumer_that_verifies_and_then_parses_shows_that_it_accepts_the_target() {
    let replica = consumer(&["now", "new"], verify_then_parse).await;
    let result = before_patch(&replica.url, ProbeBody::Unparseable).await;
    assert_eq!(told(&result), (Verdict::Accepts, "current 400, target 400, random key 401"));
    assert_eq!(result.learned, Some(Learned { random: 401, right: 400 }));
    let result = before_patch(&replica.url, ProbeBody::Json).await;
    assert_eq!(told(&result), (Verdict::Accepts, "current 200, target 200, random key 401"));
}

#[tokio::test]
async fn a_consumer_that_parses_first_needs_a_body_that_parses() {
    let replica = consumer(&["now", "new"], parse_then_verify).await;
    let result = before_patch(&replica.url, ProbeBody::Unparseable).await;
    assert_eq!(told(&result), (Verdict::Inconclusive, "current 400, target 400, random key 400"));
    assert_eq!(result.learned, None);
    assert_eq!(before_patch(&replica.url, ProbeBody::Json).await.verdict, Verdict::Accepts);
}

#[tokio::test]
async fn a_consumer_that_has_not_taken_the_target_over_refuses() {
    for manners in [verify_then_parse as Manners, five_hundred_on_mismatch] {
        let replica = consumer(&["now"], manners).await;
        assert_eq!(before_patch(&replica.url, ProbeBody::Unparseable).await.verdict, Verdict::Refuses);
    }
}

#[tokio::test]
async fn a_consumer_that_dropped_the_current_secret_already_is_not_ready() {
    let replica = consumer(&["new"], verify_then_parse).await;
    assert_eq!(before_patch(&replica.url, ProbeBody::Unparseable).await.verdict, Verdict::Inconclusive);
}

#[tokio::test]
async fn a_consumer_that_takes_anything_does_not_verify() {
    let replica = consumer(&["now", "new"], |_, _| 200).await;
    assert_eq!(before_patch(&replica.url, ProbeBody::Unparseable).await.verdict, Verdict::DoesNotVerify);
}

#[tokio::test]
async fn a_consumer_that_answers_500_on_a_mismatch_shows_that_it_accepts_the_target() {
    let replica = consumer(&["now", "new"], five_hundred_on_mismatch).await;
    let result = before_patch(&replica.url, ProbeBody::Unparseable).await;
    assert_eq!(told(&result), (Verdict::Accepts, "current 200, target 200, random key 500"));
}

#[tokio::test]
async fn a_consumer_that_is_down_is_unreachable_and_asked_only_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    drop(listener);
    let result = before_patch(&url, ProbeBody::Unparseable).await;
    let answers = "current: no connection, target: not asked, random key: not asked";
    assert_eq!(told(&result), (Verdict::Unreachable, answers));
}

#[tokio::test]
async fn a_consumer_that_hangs_up_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    assert_eq!(look(&url, None).await.verdict, Verdict::Unreachable);
}

#[tokio::test]
async fn the_retire_is_shown_by_the_old_key_being_refused_like_a_random_one() {
    let replica = consumer(&["new"], verify_then_parse).await;
    let result = at_retire(&replica.url).await;
    assert_eq!(told(&result), (Verdict::Accepts, "target 400, target 400, removed now 401, random key 401"));
    let replica = consumer(&["now", "new"], verify_then_parse).await;
    assert_eq!(at_retire(&replica.url).await.verdict, Verdict::Refuses);
    let replica = consumer(&["now"], verify_then_parse).await;
    assert_eq!(at_retire(&replica.url).await.verdict, Verdict::Refuses);
}

#[tokio::test]
async fn a_look_is_one_request_judged_by_what_the_full_probe_learned() {
    let replica = consumer(&["now", "new"], verify_then_parse).await;
    let learned = before_patch(&replica.url, ProbeBody::Unparseable).await.learned;
    replica.requests.lock().expect("lock").clear();
    assert_eq!(told(&look(&replica.url, learned.as_ref()).await), (Verdict::Accepts, "target 400"));
    assert_eq!(replica.requests.lock().expect("lock").len(), 1);
    assert_eq!(look(&replica.url, None).await.verdict, Verdict::Inconclusive);
    let put_back = consumer(&["now"], verify_then_parse).await;
    assert_eq!(told(&look(&put_back.url, learned.as_ref()).await), (Verdict::Refuses, "target 401"));
}

#[tokio::test]
async fn a_probe_is_marked_and_signed_under_both_names() {
    let replica = consumer(&["new"], verify_then_parse).await;
    look(&replica.url, None).await;
    let requests = replica.requests.lock().expect("lock");
    let headers = &requests[0];
    assert_eq!(headers["x-hookturn-probe"], "1");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-nexa-signature"], headers["x-dialnexa-signature"]);
}

/// Verifies, then parses; and from the first wrong signature on answers everybody with `banned`, as a firewall might.
async fn locks_its_door(kids: &[&str], banned: u16) -> String {
    let keys = kids.iter().map(|name| (kid(name), secret(name), Standing::Accepted)).collect();
    let (keyring, locked) = (Arc::new(Keyring::new(keys)), Arc::new(AtomicBool::new(false)));
    let app = Router::new().route(
        "/hook",
        post(move |headers: HeaderMap, body: Bytes| async move {
            let signed = matches!(verify(&headers, &body, &keyring), Verification::Matched { .. });
            let was_locked = locked.load(Ordering::SeqCst);
            locked.store(was_locked || !signed, Ordering::SeqCst);
            let status = if was_locked { banned } else { verify_then_parse(signed, false) };
            StatusCode::from_u16(status).expect("status")
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn a_consumer_that_locks_its_door_after_a_wrong_signature_is_not_taken_for_one_that_accepts() {
    for banned in [400, 401, 403, 404, 410, 429, 503] {
        let ready = locks_its_door(&["now", "new"], banned).await;
        let result = before_patch(&ready, ProbeBody::Unparseable).await;
        assert_eq!(result.verdict, Verdict::Accepts, "{banned}: {}", result.answers);
        let again = before_patch(&ready, ProbeBody::Unparseable).await;
        assert_ne!(again.verdict, Verdict::Accepts, "locked, {banned}: {}", again.answers);

        let lagging = locks_its_door(&["now"], banned).await;
        let result = before_patch(&lagging, ProbeBody::Unparseable).await;
        assert_ne!(result.verdict, Verdict::Accepts, "lagging, {banned}: {}", result.answers);

        let retired = locks_its_door(&["new"], banned).await;
        let result = at_retire(&retired).await;
        assert!(!matches!(result.verdict, Verdict::Refuses), "retired, {banned}: {}", result.answers);
        let kept = locks_its_door(&["now", "new"], banned).await;
        assert_eq!(at_retire(&kept).await.verdict, Verdict::Refuses, "{banned}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let app = Router::new()
        .route("/hook", post(|| async { (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]) }))
        .route("/elsewhere", post(|| async { StatusCode::OK }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let result = before_patch(&url, ProbeBody::Unparseable).await;
    assert_eq!(told(&result), (Verdict::Inconclusive, "current 307, target 307, random key 307"));
}
