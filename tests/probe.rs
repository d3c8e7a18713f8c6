//! The probe against small real consumers of the kinds that exist.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Redirect, Response},
    routing::post,
};
use hookturn::{
    config::ProbeBody,
    evidence::{Learned, ProbeKeys, ProbeResult, Prober, Verification, body_sha256, plan_bodies, verify},
    rotation::Verdict,
    secret::{Keyring, Kid, Secret, Standing},
};
use http::{HeaderMap, StatusCode};

/// How a consumer treats a request whose signature is right or wrong, and whose body parses or not.
type Manners = fn(&Consumer, right: bool, parses: bool) -> Response;

struct Consumer {
    manners: Manners,
    accepts: Keyring,
    /// Wrong signatures so far.
    wrong: AtomicUsize,
    requests: Mutex<Vec<(HeaderMap, Bytes)>>,
}

impl Consumer {
    async fn open(manners: Manners, accepts: &[&str]) -> (SocketAddr, Arc<Consumer>) {
        let keys = accepts.iter().map(|text| (kid(text), secret(text), Standing::Accepted)).collect();
        let consumer = Arc::new(Consumer {
            manners,
            accepts: Keyring::new(keys),
            wrong: AtomicUsize::new(0),
            requests: Mutex::new(Vec::new()),
        });
        let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&consumer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        (addr, consumer)
    }
}

async fn take(State(consumer): State<Arc<Consumer>>, headers: HeaderMap, body: Bytes) -> Response {
    let right = matches!(verify(&headers, &body, &consumer.accepts), Verification::Matched(_));
    let parses = serde_json::from_slice::<serde_json::Value>(&body).is_ok();
    consumer.requests.lock().expect("lock").push((headers, body));
    if !right {
        consumer.wrong.fetch_add(1, Ordering::SeqCst);
    }
    (consumer.manners)(&consumer, right, parses)
}

fn code(status: u16) -> Response {
    StatusCode::from_u16(status).expect("a status").into_response()
}

fn verifies_then_parses(_: &Consumer, right: bool, parses: bool) -> Response {
    code(if !right {
        401
    } else if !parses {
        400
    } else {
        200
    })
}

fn parses_then_verifies(_: &Consumer, right: bool, parses: bool) -> Response {
    code(if !parses {
        400
    } else if !right {
        401
    } else {
        200
    })
}

fn takes_anything(_: &Consumer, _: bool, _: bool) -> Response {
    code(200)
}

fn hides_behind_404(_: &Consumer, right: bool, parses: bool) -> Response {
    code(if !right {
        404
    } else if !parses {
        422
    } else {
        200
    })
}

fn debian_webhook(_: &Consumer, right: bool, _: bool) -> Response {
    code(if right { 200 } else { 500 })
}

fn answers_202_with_json(_: &Consumer, right: bool, _: bool) -> Response {
    if right { (StatusCode::ACCEPTED, r#"{"queued":true}"#).into_response() } else { code(403) }
}

fn bans_after_one(consumer: &Consumer, right: bool, parses: bool) -> Response {
    match (consumer.wrong.load(Ordering::SeqCst), right) {
        (0, _) | (1, false) => verifies_then_parses(consumer, right, parses),
        _ => code(429),
    }
}

fn bans_with_403(consumer: &Consumer, right: bool, parses: bool) -> Response {
    match (consumer.wrong.load(Ordering::SeqCst), right) {
        (0, _) | (1, false) => verifies_then_parses(consumer, right, parses),
        _ => code(403),
    }
}

fn sends_everybody_away(_: &Consumer, _: bool, _: bool) -> Response {
    Redirect::temporary("/elsewhere").into_response()
}

fn is_down(_: &Consumer, _: bool, _: bool) -> Response {
    code(503)
}

fn kid(text: &str) -> Kid {
    Kid::parse(text).expect("a kid")
}

fn secret(text: &str) -> Secret {
    Secret::parse(text).expect("a secret")
}

/// The push question: current and target both.
async fn ask(addr: SocketAddr, kind: ProbeBody, full: bool, learned: Option<&Learned>) -> ProbeResult {
    let (current, target) = (secret("current"), secret("target"));
    let keys = ProbeKeys { accept: (kid("target"), &target), control: Some((kid("current"), &current)), refuse: vec![], full };
    send(addr, kind, &keys, learned).await
}

/// The retire question: the target only.
async fn ask_retired(addr: SocketAddr) -> ProbeResult {
    let (old, target) = (secret("current"), secret("target"));
    let keys = ProbeKeys { accept: (kid("target"), &target), control: None, refuse: vec![(kid("current"), &old)], full: true };
    send(addr, ProbeBody::Unparseable, &keys, None).await
}

async fn send(addr: SocketAddr, kind: ProbeBody, keys: &ProbeKeys<'_>, learned: Option<&Learned>) -> ProbeResult {
    let plan = plan_bodies(kind, keys).expect("a plan");
    Prober::new().expect("a prober").send(&format!("http://{addr}/hook"), plan, learned).await
}

const BOTH: &[&str] = &["current", "target"];
const CURRENT: &[&str] = &["current"];
const TARGET: &[&str] = &["target"];

#[tokio::test]
async fn every_kind_of_consumer_gets_the_right_verdict_before_the_switch() {
    use ProbeBody::{Json, Unparseable};
    use Verdict::{Accepts, DoesNotVerify, Inconclusive, Refuses, Unreachable};
    for (manners, kind, loaded, not_loaded) in [
        (verifies_then_parses as Manners, Unparseable, Accepts, Refuses),
        (verifies_then_parses, Json, Accepts, Refuses),
        (parses_then_verifies, Unparseable, Inconclusive, Inconclusive),
        (parses_then_verifies, Json, Accepts, Refuses),
        (takes_anything, Unparseable, DoesNotVerify, DoesNotVerify),
        (takes_anything, Json, DoesNotVerify, DoesNotVerify),
        (hides_behind_404, Unparseable, Accepts, Refuses),
        (debian_webhook, Unparseable, Accepts, Refuses),
        (debian_webhook, Json, Accepts, Refuses),
        (answers_202_with_json, Json, Accepts, Refuses),
        // Its answer to the target came before the ban; a target that is refused brings the ban on itself.
        (bans_after_one, Unparseable, Accepts, Refuses),
        (bans_with_403, Unparseable, Accepts, Refuses),
        (sends_everybody_away, Unparseable, Inconclusive, Inconclusive),
        (is_down, Unparseable, Unreachable, Unreachable),
    ] {
        for (accepts, expected) in [(BOTH, loaded), (CURRENT, not_loaded)] {
            let (addr, _) = Consumer::open(manners, accepts).await;
            let result = ask(addr, kind, true, None).await;
            assert_eq!(result.verdict, expected, "{kind:?}, accepting {accepts:?}: {}", result.answers);
        }
    }
}

#[tokio::test]
async fn a_consumer_that_dropped_the_current_secret_too_early_is_not_ready() {
    let (addr, _) = Consumer::open(verifies_then_parses, TARGET).await;
    let result = ask(addr, ProbeBody::Unparseable, true, None).await;
    assert_eq!((result.verdict, result.answers.as_str()), (Verdict::Refuses, "current 401, target 400, random 401"));
}

#[tokio::test]
async fn after_the_retire_the_old_secret_must_be_refused() {
    for manners in [verifies_then_parses as Manners, hides_behind_404, debian_webhook] {
        let (retired, _) = Consumer::open(manners, TARGET).await;
        assert_eq!(ask_retired(retired).await.verdict, Verdict::Accepts);
        let (lagging, _) = Consumer::open(manners, BOTH).await;
        assert_eq!(ask_retired(lagging).await.verdict, Verdict::Refuses);
    }
    let (lagging, _) = Consumer::open(verifies_then_parses, BOTH).await;
    assert_eq!(ask_retired(lagging).await.answers, "target 400, removed current 400, random 401");
}

#[tokio::test]
async fn a_look_reads_one_answer_with_what_a_full_probe_had_learned() {
    let (addr, consumer) = Consumer::open(hides_behind_404, BOTH).await;
    let learned = ask(addr, ProbeBody::Unparseable, true, None).await.learned.expect("learned from an acceptance");
    assert_eq!(learned, Learned { right: 422, random: 404 });
    let before = consumer.requests.lock().expect("lock").len();
    let look = ask(addr, ProbeBody::Unparseable, false, Some(&learned)).await;
    assert_eq!((look.verdict, look.answers.as_str(), look.learned), (Verdict::Accepts, "target 422", None));
    assert_eq!(consumer.requests.lock().expect("lock").len(), before + 1);
    let (lost, _) = Consumer::open(hides_behind_404, CURRENT).await;
    assert_eq!(ask(lost, ProbeBody::Unparseable, false, Some(&learned)).await.verdict, Verdict::Refuses);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        listener.local_addr().expect("an address")
    };
    for full in [true, false] {
        let result = ask(closed, ProbeBody::Unparseable, full, None).await;
        assert_eq!(result.verdict, Verdict::Unreachable);
        assert!(result.answers.contains("target no connection"), "{}", result.answers);
    }
}

#[tokio::test]
async fn what_arrives_is_exactly_what_was_planned() {
    let (addr, consumer) = Consumer::open(verifies_then_parses, BOTH).await;
    let (current, target) = (secret("current"), secret("target"));
    let keys =
        ProbeKeys { accept: (kid("target"), &target), control: Some((kid("current"), &current)), refuse: vec![], full: true };
    let plan = plan_bodies(ProbeBody::Unparseable, &keys).expect("a plan");
    let stored: Vec<[u8; 32]> = plan.iter().map(|request| request.sha256).collect();
    let url = format!("http://{addr}/hook");
    Prober::new().expect("a prober").send(&url, plan, None).await;
    let requests = consumer.requests.lock().expect("lock");
    let sent: Vec<[u8; 32]> = requests.iter().map(|(_, body)| body_sha256(body)).collect();
    assert_eq!(sent, stored);
    for (headers, _) in requests.iter() {
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-hookturn-probe"], "1");
        assert_eq!(headers["x-nexa-signature"], headers["x-dialnexa-signature"]);
    }
}
