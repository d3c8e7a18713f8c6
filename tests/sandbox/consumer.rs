use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::stage::{Endpoint, client, eventually, secret};
use hookturn::{
    sandbox::{
        balancer::{Balancer, Targets},
        consumer::{Behaviour, Consumer, ConsumerOptions, Doors, Replica, RunningConsumer},
    },
    secret::{Kid, signature},
};

const BROKEN: u16 = 0;

/// Replaces a keystore file as a whole, as hookturn does.
fn write_keystore(path: &Path, generation: u64, keys: &[(&str, &str, &str)]) {
    let keys: Vec<_> = keys.iter().map(|(kid, state, secret)| json!({"kid": kid, "state": state, "secret": secret})).collect();
    put(path, &json!({"version": 1, "generation": generation, "keys": keys}).to_string());
}

fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("written");
    std::fs::rename(next, path).expect("renamed");
}

const OLD: (&str, &str, &str) = ("k_old", "current", "old");
const NEW: (&str, &str, &str) = ("k_new", "pending", "new");

async fn started(dir: &Path, change: impl FnOnce(&mut ConsumerOptions)) -> RunningConsumer {
    let keystore = dir.join("secrets.json");
    if !keystore.exists() {
        write_keystore(&keystore, 1, &[OLD]);
    }
    let mut options = ConsumerOptions::new(keystore);
    options.refresh = Duration::from_millis(5);
    options.status_every = Some(Duration::from_millis(10));
    change(&mut options);
    Consumer::start(options).await.expect("a consumer")
}

/// Posts `body` signed with `text`; the status, or [`BROKEN`].
async fn post(url: &str, text: &str, body: &'static str) -> u16 {
    let signature = signature::sign(&secret(text), body.as_bytes());
    let request = client().post(url).header("x-nexa-signature", signature).body(body);
    request.send().await.map_or(BROKEN, |answer| answer.status().as_u16())
}

/// What a replica answers to the old key, the new key, a wrong key, and to the old and a wrong key over what is not JSON.
async fn answers(replica: &Replica) -> [u16; 5] {
    let url = replica.url();
    [
        post(&url, "old", "{}").await,
        post(&url, "new", "{}").await,
        post(&url, "wrong", "{}").await,
        post(&url, "old", "{").await,
        post(&url, "wrong", "{").await,
    ]
}

async fn generation(replica: &Replica, generation: u64) {
    eventually("the generation", || replica.generation() == generation).await;
}

#[tokio::test]
async fn a_good_replica_follows_the_file_and_verifies_before_it_parses() {
    let dir = tempfile::tempdir().expect("a directory");
    let consumer = started(dir.path(), |_| {}).await;
    let replica = &consumer.replicas()[0];
    assert_eq!(answers(replica).await, [200, 401, 401, 400, 401]);
    write_keystore(&dir.path().join("secrets.json"), 2, &[OLD, NEW]);
    generation(replica, 2).await;
    assert_eq!(answers(replica).await, [200, 200, 401, 400, 401]);
    write_keystore(&dir.path().join("secrets.json"), 3, &[("k_new", "current", "new")]);
    generation(replica, 3).await;
    assert_eq!(answers(replica).await, [401, 200, 401, 401, 401]);
    let counts = replica.counts();
    assert_eq!((counts.accepted, counts.rejected), (4, 11));
    assert_eq!(counts.of(Kid::parse("k_old").expect("a kid")).accepted, 2);
    assert_eq!(counts.refused["unparseable"], 2);
}

#[tokio::test]
async fn a_broken_or_older_file_keeps_the_last_good_keys_and_an_empty_one_fails_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("secrets.json");
    write_keystore(&path, 5, &[OLD]);
    let consumer = started(dir.path(), |options| options.replicas = 1).await;
    let replica = &consumer.replicas()[0];
    put(&path, "{\"version\":1,");
    eventually("the problem", || replica.problem().is_some()).await;
    write_keystore(&path, 4, &[NEW]);
    eventually("the older one", || replica.problem().is_some_and(|p| p.contains("older"))).await;
    assert_eq!((replica.generation(), post(&replica.url(), "old", "{}").await), (5, 200));
    write_keystore(&path, 6, &[]);
    generation(replica, 6).await;
    assert_eq!(post(&replica.url(), "old", "{}").await, 401);
}

#[tokio::test]
async fn each_misbehaviour_shows_on_the_wire() {
    let dir = tempfile::tempdir().expect("a directory");
    let consumer = started(dir.path(), |options| options.replicas = 1).await;
    let replica = &consumer.replicas()[0];
    write_keystore(&dir.path().join("secrets.json"), 2, &[OLD, NEW]);
    generation(replica, 2).await;
    for (behaviour, expected) in [
        (Behaviour::Good, [200, 200, 401, 400, 401]),
        (Behaviour::ParsesFirst, [200, 200, 401, 400, 400]),
        (Behaviour::DoesNotVerify, [200, 200, 200, 200, 200]),
        (Behaviour::RefusesTheNew, [200, 401, 401, 400, 401]),
        (Behaviour::FallsBackToOld, [200, 401, 401, 400, 401]),
        (Behaviour::Fails { status: 500 }, [500, 500, 401, 400, 401]),
        (Behaviour::Bans { after: 1, ms: 60_000 }, [200, 200, 401, 403, 403]),
        (Behaviour::Down, [BROKEN; 5]),
        (Behaviour::Slow { ms: 1 }, [200, 200, 401, 400, 401]),
        (Behaviour::Good, [200, 200, 401, 400, 401]),
    ] {
        replica.behave(behaviour);
        assert_eq!(answers(replica).await, expected, "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_replica_that_never_reloads_keeps_its_keys_until_it_is_restarted() {
    let dir = tempfile::tempdir().expect("a directory");
    let consumer = started(dir.path(), |_| {}).await;
    let [stuck, good] = &consumer.replicas()[..] else { panic!("two replicas") };
    stuck.behave(Behaviour::NeverReloads);
    write_keystore(&dir.path().join("secrets.json"), 2, &[OLD, NEW]);
    generation(good, 2).await;
    consumer.reload().await;
    assert_eq!(stuck.generation(), 1);
    assert_eq!(post(&stuck.url(), "new", "{}").await, 401);
    stuck.restart().await;
    assert_eq!((stuck.generation(), stuck.counts().rejected), (2, 0));
}

async fn status(replica: &Replica, so: impl Fn(&Value) -> bool) -> Value {
    let path = replica.status_path();
    let mut seen = Value::Null;
    eventually("the status", || {
        seen = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        so(&seen)
    })
    .await;
    seen
}

#[tokio::test]
async fn the_status_file_says_the_generation_and_counts_what_was_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let consumer = started(dir.path(), |_| {}).await;
    let replica = &consumer.replicas()[1];
    let fresh = status(replica, |s| s["generation"] == 1).await;
    assert_eq!((&fresh["replica"], &fresh["keys"][0]["last_verified_at"]), (&json!("web-2"), &Value::Null));
    write_keystore(&dir.path().join("secrets.json"), 2, &[OLD, NEW]);
    generation(replica, 2).await;
    assert_eq!(post(&replica.url(), "new", "{}").await, 200);
    assert_eq!(post(&replica.url(), "new", "{").await, 400);
    let counted = status(replica, |s| s["keys"][1]["verified"] == 1).await;
    assert_eq!((&counted["keys"][1]["kid"], &counted["keys"][0]["verified"]), (&json!("k_new"), &json!(0)));
    let time = |name: &Value| chrono::DateTime::parse_from_rfc3339(name.as_str().unwrap_or_default()).is_ok();
    assert!(time(&counted["started_at"]) && time(&counted["keys"][1]["last_verified_at"]));
    let paths: Vec<_> = consumer.replicas().iter().map(Replica::status_path).collect();
    consumer.shutdown().await;
    assert!(paths.iter().all(|path| !path.exists()), "a replica that left in order leaves no status");
}

#[tokio::test]
async fn reports_and_copies_reach_the_daemons_doors() {
    let (dir, daemon) = (tempfile::tempdir().expect("a directory"), Endpoint::start().await);
    let doors = Doors {
        base: format!("http://{}", daemon.addr),
        name: "billing".to_owned(),
        report_token: Some(secret("token")),
        tap_token: None,
        reports: true,
        mirror: true,
    };
    let consumer = started(dir.path(), |options| options.doors = Some(doors)).await;
    let url = consumer.replicas()[0].url();
    assert_eq!((post(&url, "old", "{}").await, post(&url, "wrong", "[]").await), (200, 401));
    eventually("two copies and a report", || daemon.requests().len() == 3).await;
    let requests = daemon.requests();
    let report = requests.iter().find(|r| r.path == "/report/billing").expect("a report");
    assert_eq!(report.headers["authorization"], "Bearer token");
    let body: Value = serde_json::from_slice(&report.body).expect("JSON");
    let empty_object = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let told = json!({
        "kid": "k_old", "body_sha256": empty_object, "status": 200, "replica": "web-1", "user_agent": null, "event": null,
    });
    assert_eq!(body, told);
    let copies: Vec<_> = requests.iter().filter(|r| r.path == "/tap/billing").collect();
    assert!(copies.iter().any(|copy| {
        let found = signature::candidates(&copy.headers).expect("a signature");
        copy.body == "{}" && found[0].mac == signature::mac(&secret("old"), b"{}")
    }));
    consumer.tell(false, false);
    assert_eq!(post(&url, "old", "{}").await, 200);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((daemon.requests().len(), consumer.replicas()[0].messages_dropped()), (3, 0));
}

#[tokio::test]
async fn the_balancer_takes_turns_passes_everything_on_and_says_502_for_a_dead_replica() {
    let (one, other) = (Endpoint::start().await, Endpoint::start().await);
    let targets = Targets::new(vec![one.addr, other.addr]);
    let front = Balancer::start(targets.clone()).await.expect("a balancer");
    one.answers(&[401]);
    let url = format!("{}/deep?x=1", front.url());
    let mut statuses = [post(&url, "old", "{}").await, post(&url, "old", "{}").await];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    for endpoint in [&one, &other] {
        let request = endpoint.last();
        assert_eq!((request.path.as_str(), &request.body[..]), ("/hook/deep", &b"{}"[..]));
        assert!(signature::candidates(&request.headers).is_ok());
    }
    targets.set(vec!["127.0.0.1:1".parse().expect("an address")]);
    assert_eq!(post(&url, "old", "{}").await, 502);
    targets.set(Vec::new());
    assert_eq!(post(&url, "old", "{}").await, 502);
}
