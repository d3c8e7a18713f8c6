//! `survey` against a sandbox that plays each answer which DialNexa's pages leave open.

mod world;

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use hookturn::{
    sandbox::provider::{BodyShape, Envelope, Fault, Header, Inactive, Injection, RetriesSigned, Settings, Verification},
    secret::SealingKey,
    store::{Sqlite, Store},
};
use serde_json::Value;
use world::{World, said};

const LONG: Duration = Duration::from_secs(60);

/// A world whose webhook delivers to the survey, and lets nothing happen by itself.
async fn laboratory(tune: impl FnOnce(&mut Settings)) -> World {
    let world = World::start(|options| {
        options.settings.backoff_ms = 400;
        tune(&mut options.settings);
        options.per_second = 0.0;
    })
    .await;
    let (handle, id) = (world.sandbox.handle(), &world.sandbox.webhook_id);
    assert!(handle.set_url(id, &format!("http://{}/throw/away", world.sandbox.deliveries)));
    world
}

/// Starts a survey, and traffic once its first PATCH has come: before that nobody listens.
async fn begin(world: &World, per_second: f64, more: &[&str]) -> tokio::process::Child {
    let before = world.sandbox.handle().patch_count();
    let mut arguments = vec!["survey", "billing", "--throw-away", "--json"];
    if !more.contains(&"--wait") {
        arguments.extend(["--wait", "60s"]);
    }
    arguments.extend(["--watch", "24s"]);
    arguments.extend(more);
    let child = world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a survey");
    let patched = async {
        while world.sandbox.handle().patch_count() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, patched).await.expect("a first PATCH");
    world.sandbox.handle().traffic(&world.sandbox.webhook_id, per_second);
    child
}

/// How it ended, and what it found. Whatever it says, it says no secret.
async fn ends(child: tokio::process::Child, exit: i32) -> Value {
    let output = child.wait_with_output().await.expect("it ends");
    found(&output, exit)
}

fn found(output: &Output, exit: i32) -> Value {
    let told = said(output);
    assert_eq!(output.status.code(), Some(exit), "{told}");
    assert!(!told.contains("whsec_"), "a secret:\n{told}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}:\n{told}"));
    assert_eq!(found["answers"].as_array().map(Vec::len), Some(9), "{found:#}");
    found
}

fn answer(found: &Value, number: usize) -> &str {
    found["answers"][number - 1]["text"].as_str().unwrap_or_default()
}

/// Two PATCHes, three retries: what came of them in this variant.
async fn whole(tune: impl FnOnce(&mut Settings), forms: Value, resigned: &str) {
    let world = laboratory(tune).await;
    let found = ends(begin(&world, 10.0, &[]).await, 0).await;
    let findings = &found["findings"];
    assert_eq!((&findings["forms"], &findings["resigned"]), (&forms, &resigned.into()), "{findings:#}");
    assert_eq!((&findings["honoured"], &findings["trust"]), (&true.into(), &"whole".into()), "{findings:#}");
    assert_eq!(findings["switches"].as_array().map(Vec::len), Some(2), "{findings:#}");
    for retries in ["retries", "retries_after_401"] {
        assert_eq!(findings[retries]["after"].as_array().map(Vec::len), Some(3), "{findings:#}");
        assert_eq!(findings[retries]["same_body"], true);
    }
    assert_eq!((&findings["quarantine_ms"], &findings["drain_ms"]), (&900_000.into(), &3_600_000.into()), "{findings:#}");
    assert_eq!(world.sandbox.handle().patch_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_header_and_prefix_and_retries_that_keep_their_signature_or_are_signed_anew() {
    let anew = |settings: &mut Settings| {
        (settings.header, settings.prefix) = (Header::Nexa, false);
        (settings.retries_signed, settings.envelope) = (RetriesSigned::New, Envelope::DataWebhook);
        settings.body = BodyShape::Nested;
    };
    tokio::join!(
        whole(|_| {}, serde_json::json!([["x-dialnexa-signature", true]]), "old"),
        whole(anew, serde_json::json!([["x-nexa-signature", false]]), "new"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_lags_and_mixes_is_timed() {
    let world = laboratory(|settings| {
        (settings.header, settings.retries_signed) = (Header::Both, RetriesSigned::New);
        (settings.propagation_ms, settings.mixed_ms, settings.envelope) = (1_500, 1_000, Envelope::StatusData);
    })
    .await;
    world.sandbox.handle().inject(Injection::once(Fault::ApplyThenDrop { cut: Default::default() }));
    let found = ends(begin(&world, 10.0, &[]).await, 0).await;
    let switches = found["findings"]["switches"].as_array().expect("switches");
    assert_eq!(switches.len(), 2, "{found:#}");
    for switch in switches {
        let ms = |name: &str| switch[name].as_u64().unwrap_or_default();
        assert!(ms("at_least") > 0 && ms("at_most") >= 1_500, "{switch:#}");
    }
    assert!(switches[1]["mixed_until"].is_u64(), "{switches:#?}");
    // The first answer was lost, and the same secret was sent again.
    assert_eq!(world.sandbox.handle().patch_count(), 3);
    assert_eq!(found["kids"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_honoured_is_said_to_be_so() {
    let with = async |fault| {
        let world = laboratory(|_| {}).await;
        world.sandbox.handle().inject(Injection::sticky(fault));
        let found = ends(begin(&world, 10.0, &["--wait", "4s"]).await, 1).await;
        assert_eq!(found["findings"]["honoured"], false, "{found:#}");
        assert!(answer(&found, 4).starts_with("NO: DialNexa said"), "{found:#}");
        assert_eq!(world.sandbox.handle().patch_count(), 1, "no second PATCH where the first did nothing");
        found
    };
    let (.., cut) = tokio::join!(with(Fault::SecretIgnored), with(Fault::LyingOk), with(Fault::SecretTruncated { bytes: 32 }));
    assert!(answer(&cut, 6).starts_with("32 characters"), "{cut:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_delivery_or_a_retry_nothing_is_claimed() {
    let world = laboratory(|settings| settings.retries = 0).await;
    let found = ends(begin(&world, 0.0, &["--wait", "1s"]).await, 3).await;
    assert_eq!((&found["findings"]["honoured"], &found["findings"]["trust"]), (&Value::Null, &"too-short".into()), "{found:#}");
    let again = ends(begin(&world, 10.0, &[]).await, 3).await;
    let findings = &again["findings"];
    assert_eq!((&findings["honoured"], &findings["resigned"]), (&true.into(), &"unknown".into()), "{findings:#}");
    assert_eq!(findings["drain_ms"], 86_400_000, "{findings:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_ends_it() {
    let world = laboratory(|_| {}).await;
    world.sandbox.handle().inject(Injection::once(Fault::ValueRefused));
    let found = ends(begin(&world, 10.0, &[]).await, 1).await;
    assert_eq!(found["findings"]["honoured"], Value::Null, "{found:#}");
}

/// Everything that is not done unless it is asked for; calls come from the stimulus alone.
async fn asked(inactive: Inactive, verification: Verification, answers: [(usize, &str); 2]) {
    let world = laboratory(|settings| (settings.inactive, settings.verification) = (inactive, verification)).await;
    let calls = world.dir.path().join("calls");
    std::fs::write(&calls, "").expect("written");
    let script = format!("echo call >> {}", calls.display());
    let url = format!("http://{}/elsewhere", world.sandbox.deliveries);
    let more = ["--wait", "10s", "--inactive", "3s", "--verification", &url, "--stimulus", "sh", "-c", &script];
    let (handle, id) = (world.sandbox.handle().clone(), world.sandbox.webhook_id.clone());
    let phone = tokio::spawn(async move {
        let mut placed = 0;
        loop {
            let wanted = std::fs::read_to_string(&calls).map_or(0, |text| text.lines().count() as u64);
            handle.deliver(&id, wanted - placed);
            placed = wanted;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let found = ends(begin(&world, 0.0, &more).await, 0).await;
    phone.abort();
    for (number, text) in answers {
        assert!(answer(&found, number).starts_with(text), "{number}: {found:#}");
    }
    let state = world.sandbox.handle().state();
    let webhook = state.webhooks.first().expect("the webhook");
    assert!(webhook.is_active && webhook.url.ends_with("/throw/away"), "it is as it was: {webhook:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_while_inactive_and_verification_requests_are_told_apart() {
    tokio::join!(
        asked(Inactive::Queue, Verification::Signed, [(5, "yes, signed with secret B"), (7, "yes")]),
        asked(Inactive::Drop, Verification::Unsigned, [(5, "yes, unsigned"), (7, "no")]),
        asked(Inactive::Queue, Verification::None, [(5, "no: "), (7, "yes")]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_early_it_keeps_what_it_saw_and_check_uses_only_a_whole_one() {
    let world = laboratory(|_| {}).await;
    let child = begin(&world, 0.0, &[]).await;
    let id = rustix::process::Pid::from_raw(child.id().expect("it runs") as i32).expect("an id");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("a signal");
    let found = ends(child, 3).await;
    assert_eq!(found["observations"]["interrupted"], true, "{found:#}");
    let again = world.run(&["survey", "billing", "--last", "--json"]).await;
    assert_eq!(self::found(&again, 3), found);

    let text = std::fs::read_to_string(&world.config).expect("a configuration");
    let other = "\n[[webhook]]\nname = \"other\"\nid = \"whk_other\"\ndrain = \"10m\"\nkeystore = { kind = \"file\", path = \
                 \"other.json\" }\npreflight = { probe = [\"http://127.0.0.1:9/\"] }\n";
    std::fs::write(&world.config, text + other).expect("written");
    let note = "other: drain 10m is shorter than the 1h of the survey";
    assert!(!said(&world.run(&["check", "--offline"]).await).contains(note));
    ends(begin(&world, 10.0, &[]).await, 0).await;
    let checked = said(&world.run(&["check", "--offline"]).await);
    assert!(checked.contains(note), "{checked}");
    for command in ["plan", "status"] {
        let told = said(&world.run(&[command, "other"]).await);
        assert!(told.contains(note.trim_start_matches("other: ")), "{command}: {told}");
    }
    let page = said(&world.run(&["survey", "billing", "--last"]).await);
    for line in ["[observed]", "[for a person]", "[cannot be seen]", "drain = \"1h\"", "PATCH with secret B"] {
        assert!(page.contains(line), "{line:?} is not in:\n{page}");
    }
    // What is left behind holds nothing up.
    let status = world.status().await;
    assert_eq!((&status["phase"], &status["hold"], &status["adopted"]), (&"idle".into(), &Value::Null, &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_its_patch_what_dialnexa_has_is_in_the_store() {
    let world = laboratory(|_| {}).await;
    world.sandbox.handle().inject(Injection::sticky(Fault::Slow { ms: 30_000 }));
    let mut child = begin(&world, 0.0, &[]).await;
    child.kill().await.expect("killed");
    let told = said(&world.run(&["survey", "billing", "--last"]).await);
    assert!(told.contains("did not come to its end"), "{told}");
    let sealing = std::fs::read_to_string(world.sandbox.dir().join("sealing-key")).expect("a sealing key");
    let sealing = SealingKey::parse(&sealing).expect("a sealing key");
    let store = Sqlite::look(&world.dir.path().join("hookturn.db")).await.expect("a store").expect("a store");
    let kept = store.secrets("billing").await.expect("secrets");
    let labels = kept.iter().map(|stored| {
        let secret = sealing.open("billing", stored.kid, &stored.sealed).expect("it opens");
        world.sandbox.handle().label_of(&world.sandbox.webhook_id, &secret)
    });
    assert_eq!(labels.collect::<Vec<_>>(), [world.sandbox.handle().stored(&world.sandbox.webhook_id)]);
    // And the next one takes it from there.
    world.sandbox.handle().clear_faults();
    ends(begin(&world, 10.0, &[]).await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_somebody_needs_is_not_surveyed() {
    let world = laboratory(|_| {}).await;
    let refused = |output: Output, exit: i32, phrase: &str| {
        let told = said(&output);
        assert_eq!(output.status.code(), Some(exit), "{told}");
        assert!(told.contains(phrase), "{told}");
    };
    let survey = ["survey", "billing", "--throw-away", "--wait", "1s", "--listen", "127.0.0.1:0"];
    refused(world.run(&["survey", "billing"]).await, 1, "--throw-away");
    refused(world.run(&["survey", "nobody", "--throw-away"]).await, 64, "nobody");
    refused(world.run(&["survey", "billing", "--last"]).await, 1, "never surveyed");
    world.sandbox.handle().set_active(&world.sandbox.webhook_id, false);
    refused(world.run(&survey).await, 1, "switched off");
    world.sandbox.handle().set_active(&world.sandbox.webhook_id, true);
    {
        let _daemon = world.daemon();
        world.ready().await;
        refused(world.run(&survey).await, 75, "a daemon runs");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.adopt().await;
    refused(world.run(&survey).await, 1, "adopted");
    assert_eq!(world.sandbox.handle().patch_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_being_rotated_is_not_surveyed() {
    let world = World::start(|_| {}).await;
    world.adopt().await;
    let begun = world.run(&["rotate-now", "billing", "--unconfirmed", "--until", "pushed", "--timeout", "60s"]).await;
    assert!(matches!(begun.status.code(), Some(0 | 3)), "{}", said(&begun));
    let patches = world.sandbox.handle().patch_count();
    let refused = world.run(&["survey", "billing", "--throw-away"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("a rotation is under way"), "{}", said(&refused));
    assert_eq!(world.sandbox.handle().patch_count(), patches);
}
