//! Each diagnosis is provoked from outside and read from `explain` by somebody who knows nothing of its cause.

#[path = "diagnosis/members.rs"]
mod members;
#[path = "diagnosis/policy.rs"]
mod policy;
#[path = "diagnosis/trouble.rs"]
mod trouble;
mod world;

use std::time::{Duration, Instant};

use hookturn::{
    sandbox::{
        consumer::Behaviour,
        provider::{Fault, Injection},
    },
    secret::{Secret, signature},
};
use world::{World, said};

const LIMIT: Duration = Duration::from_secs(60);

/// A daemon over an adopted and confirmed secret, with reports and a mirror.
async fn confirmed(tune: impl FnOnce(&mut hookturn::sandbox::SandboxOptions)) -> (World, tokio::process::Child) {
    let world = World::start(|options| {
        options.mirror = true;
        tune(options);
    })
    .await;
    world.adopt().await;
    let daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    (world, daemon)
}

/// What `explain` says under this word, as soon as it does.
async fn explained(world: &World, word: &str) -> String {
    let began = Instant::now();
    loop {
        let told = said(&world.run(&["explain", "billing"]).await);
        let line = told.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{word}: ")));
        if let Some(paragraph) = line {
            return paragraph.to_owned();
        }
        assert!(began.elapsed() < LIMIT, "{word} was never explained:\n{told}\nlog:\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn traffic(world: &World, on: bool) {
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, on);
}

/// The rotation waits for a delivery, and none comes.
async fn quiet_after_the_patch(world: &World) {
    traffic(world, false);
    assert!(world.sandbox.handle().settled(LIMIT).await);
    let done = world.run(&["rotate-now", "billing", "--until", "patched", "--timeout", "60s"]).await;
    assert!(done.status.success(), "{}\nlog:\n{}", said(&done), world.log());
}

/// A request to the tap, as a mirror sends it.
async fn tap(world: &World, agent: &str, header: &str, signature: &str, body: &str) {
    static CLIENT: std::sync::LazyLock<reqwest::Client> = std::sync::LazyLock::new(reqwest::Client::new);
    let url = format!("http://{}/tap/billing", world.sandbox.deliveries);
    let request = CLIENT.post(url).header("connection", "close").header("user-agent", agent).header(header, signature);
    let answer = request.body(body.to_owned()).send().await.expect("the tap answers");
    assert_eq!(answer.status(), 204);
}

/// A delivery that no key ever signed.
async fn forged(world: &World, count: usize) {
    for nth in 0..count {
        tap(world, "curl/8", "x-nexa-signature", &format!("sha256={}", "ab".repeat(32)), &format!("{{\"n\":{nth}}}")).await;
    }
}

fn initial_secret(world: &World) -> Secret {
    Secret::parse(&std::fs::read_to_string(world.sandbox.secret_file()).expect("a file")).expect("a secret")
}

async fn rotated(world: &World) {
    let done = world.run(&["rotate-now", "billing", "--until", "retired", "--timeout", "90s"]).await;
    assert!(done.status.success(), "{}\nlog:\n{}", said(&done), world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_forged_deliveries_and_then_the_real_one() {
    let (world, _daemon) = confirmed(|options| options.repeat_max = Duration::from_secs(600)).await;
    quiet_after_the_patch(&world).await;
    let told = explained(&world, "no-traffic").await;
    assert!(told.contains("usually one comes every") && told.contains("ago"), "{told}");
    let before = world.status().await;
    let keystore = std::fs::read(&world.sandbox.keystore).expect("the keystore");
    forged(&world, 100).await;
    let told = explained(&world, "neither").await;
    assert!(told.contains("100 deliveries verified under no known secret") && told.contains("curl/8"), "{told}");
    let after = world.status().await;
    for unmoved in ["phase", "generation", "accepted", "attempts", "target", "overdue", "hold"] {
        assert_eq!(before[unmoved], after[unmoved], "{unmoved}: a bad signature alone does nothing");
    }
    assert_eq!(keystore, std::fs::read(&world.sandbox.keystore).expect("the keystore"));
    traffic(&world, true);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    let evidence = said(&world.run(&["explain", "billing"]).await);
    let decided = evidence.lines().find(|line| line.contains("decided by a delivery")).unwrap_or_default();
    assert!(decided.contains("from 127.0.0.1") || decided.contains("replica web-"), "{evidence}");
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_changes_nothing_and_one_that_changes_half() {
    let (world, _daemon) = confirmed(|options| options.settings.mixed_ms = 8_000).await;
    world.sandbox.handle().inject(Injection::sticky(Fault::LyingOk));
    let done = world.run(&["rotate-now", "billing", "--until", "patched", "--timeout", "60s"]).await;
    assert!(done.status.success(), "{}", said(&done));
    let told = explained(&world, "still-old").await;
    assert!(told.contains("still signed with the old secret"), "{told}");
    world.sandbox.handle().clear_faults();
    let told = explained(&world, "mixed").await;
    assert!(told.contains("under both secrets"), "{told}");
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_refuses_what_it_was_proven_to_accept() {
    let (world, _daemon) = confirmed(|_| {}).await;
    quiet_after_the_patch(&world).await;
    for replica in world.sandbox.consumer.replicas() {
        replica.behave(Behaviour::Fails { status: 401 });
    }
    world.sandbox.handle().deliver(&world.sandbox.webhook_id, 1);
    let told = explained(&world, "rejected-by-consumer").await;
    assert!(told.contains("Nobody can forge such a delivery"), "{told}");
    world.until("held", LIMIT, |status| status["hold"] == "rejected-by-consumer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn between_rotations_each_stranger_is_told_from_the_others() {
    let (world, _daemon) = confirmed(|_| {}).await;
    world.until("the tap is seen", LIMIT, |status| status["deliveries"]["current"].as_u64() > Some(30)).await;

    world.sandbox.consumer.tell(true, false);
    let told = explained(&world, "tap-silent").await;
    assert!(told.contains("Deliveries are not affected"), "{told}");
    world.sandbox.consumer.tell(true, true);
    world.until("the tap is back", LIMIT, |status| status["findings"] == serde_json::json!([])).await;

    tap(&world, "DialNexa-External-Webhook/1.0", "x-dialnexa-signature", &"cd".repeat(32), "{}").await;
    let told = explained(&world, "external-plane").await;
    assert!(told.contains("DialNexa-External-Webhook/1.0"), "{told}");

    rotated(&world).await;
    let old = initial_secret(&world);
    let body = r#"{"event":"call.completed","n":1}"#;
    let signed = signature::sign(&old, body.as_bytes());
    let to_the_consumer = reqwest::Client::new().post(&world.sandbox.consumer.urls()[0]).header("user-agent", "late/1");
    let answer = to_the_consumer.header("x-nexa-signature", &signed).body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 401, "recognised, and never accepted");
    tap(&world, "late/1", "x-nexa-signature", &signed, body).await;
    let told = explained(&world, "retired-key-seen").await;
    for part in ["late/1", "call.completed", "127.0.0.1", "tap door"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    world.until("a person is called", LIMIT, |status| status["findings"][0]["person"] == true).await;
    let check = world.run(&["status", "--check"]).await;
    assert_eq!(check.status.code(), Some(1), "{}", said(&check));
    world.nothing_lost().await;

    // The provider is put back from a backup: it signs with the retired secret again.
    world.sandbox.handle().change_by_hand(&world.sandbox.webhook_id, old);
    let told = explained(&world, "signs-with-retired").await;
    assert!(told.contains("put back from a backup"), "{told}");

    let strange = Secret::parse("whsec_by_hand").expect("a secret");
    world.sandbox.handle().change_by_hand(&world.sandbox.webhook_id, strange);
    let told = explained(&world, "changed-by-hand").await;
    assert!(told.contains("changed by hand at DialNexa"), "{told}");

    // Somebody else writes the keystore too.
    let mut keystore: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&world.sandbox.keystore).expect("the keystore")).expect("JSON");
    keystore["generation"] = (keystore["generation"].as_u64().unwrap_or(0) + 1).into();
    let beside = world.sandbox.keystore.with_extension("beside");
    std::fs::write(&beside, keystore.to_string()).expect("written");
    std::fs::rename(&beside, &world.sandbox.keystore).expect("in place");
    explained(&world, "keystore-contested").await;
    explained(&world, "second-orchestrator").await;
    let metrics = reqwest::get(format!("http://{}/metrics", world.sandbox.status)).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("hookturn_diagnosis{webhook=\"billing\",word=\"second-orchestrator\"} 1"), "{metrics}");
    assert!(world.log().contains("diagnosis=\"changed-by-hand\""), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_answers_prove_nothing() {
    for (behaviour, word) in
        [(Behaviour::ParsesFirst, "probe-inconclusive"), (Behaviour::DoesNotVerify, "consumer-does-not-verify")]
    {
        let (world, _daemon) = confirmed(|_| {}).await;
        for replica in world.sandbox.consumer.replicas() {
            replica.behave(behaviour);
        }
        let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
        assert_eq!(done.status.code(), Some(3), "{}", said(&done));
        let told = explained(&world, word).await;
        assert!(told.contains(&world.sandbox.consumer.urls()[0]), "{told}");
        assert!(world.sandbox.handle().patches().is_empty());
    }
}
