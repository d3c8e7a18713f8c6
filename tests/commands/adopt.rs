use std::fs;

use serde_json::{Value, json};

use super::{World, ends};

fn keys(world: &World) -> Vec<Value> {
    let bytes = fs::read(&world.sandbox.keystore).expect("a keystore");
    let content: Value = serde_json::from_slice(&bytes).expect("JSON");
    content["keys"].as_array().expect("keys").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_key_of_the_keystore_is_taken_over_as_it_is() {
    let world = World::start(|_| {}).await;
    let before = fs::read(&world.sandbox.keystore).expect("a keystore");
    let kid = keys(&world)[0]["kid"].as_str().expect("a kid").to_owned();
    ends(&world.run(&["adopt", "billing", "--from-keystore"]).await, 0, &[&kid, "unconfirmed"]);
    // Once more is no harm, nor is the same secret by hand.
    ends(&world.run(&["adopt", "billing", "--from-keystore"]).await, 0, &[&kid]);
    let file = world.sandbox.secret_file().display().to_string();
    ends(&world.run(&["adopt", "billing", "--secret-file", &file]).await, 0, &[&kid]);
    assert_eq!(fs::read(&world.sandbox.keystore).expect("a keystore"), before, "it was written");
    world.rotates(&["--unconfirmed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keystore_with_others_beside_it_is_told_and_from_keystore_takes_its_current_one() {
    let world = World::start(|_| {}).await;
    let mut content: Value = serde_json::from_slice(&fs::read(&world.sandbox.keystore).expect("a keystore")).expect("JSON");
    content["keys"]
        .as_array_mut()
        .expect("keys")
        .push(json!({"kid": "k_older", "state": "previous", "secret": "whsec_older", "secret_encoding": "utf8"}));
    fs::write(&world.sandbox.keystore, content.to_string()).expect("written");
    let file = world.sandbox.secret_file().display().to_string();
    let refused = world.run(&["adopt", "billing", "--secret-file", &file]).await;
    ends(&refused, 1, &["others beside it", "nothing was changed", "--from-keystore"]);
    ends(&world.run(&["adopt", "billing", "--from-keystore"]).await, 0, &[]);
    world.rotates(&["--unconfirmed"]).await;
    assert_eq!(keys(&world).len(), 1, "the older one went with the first rotation");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_secret_stays_accepted_until_the_first_rotation_has_retired_it() {
    let world = World::start(|_| {}).await;
    ends(&world.run(&["adopt", "billing", "--unknown"]).await, 0, &["without knowing the secret", "no way back"]);
    world.rotates(&["--unconfirmed"]).await;
    let label = world.sandbox.handle().signing(&world.sandbox.webhook_id);
    assert_eq!((label, keys(&world).len()), (Some(vec![1]), 1));
}

/// The consumer's old secret is somewhere else, so the keystore of such a rotation holds the new one alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_away_from_an_unknown_secret_is_not_aborted_into_an_empty_keystore() {
    let world = World::start(|_| {}).await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    fs::remove_file(&world.sandbox.keystore).expect("removed");
    let _daemon = world.daemon();
    world.ready().await;
    ends(&world.run(&["adopt", "billing", "--unknown"]).await, 0, &[]);
    // A consumer that goes on with what it has and never looks would be named here.
    world.sandbox.consumer.replicas()[0].behave(hookturn::sandbox::consumer::Behaviour::NeverReloads);
    ends(&world.run(&["rotate-now", "billing", "--unconfirmed", "--timeout", "3s"]).await, 3, &["replica-"]);
    let refused = world.run(&["abort", "billing"]).await;
    ends(&refused, 1, &["left empty", "nothing was changed", "hookturn pause billing"]);
    let status = world.status().await;
    assert_eq!((&status["phase"], keys(&world).len()), (&"push".into(), 1), "{status:#}");
    ends(&world.run(&["pause", "billing"]).await, 0, &["paused"]);
    ends(&world.run(&["resume", "billing"]).await, 0, &["resumed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_adopted_under_a_rotation_and_an_unsent_secret_is_taken_back() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    world.sandbox.consumer.replicas()[0].behave(hookturn::sandbox::consumer::Behaviour::NeverReloads);
    ends(&world.run(&["rotate-now", "billing", "--timeout", "3s"]).await, 3, &["replica-lags"]);
    ends(&world.run(&["adopt", "billing", "--from-keystore"]).await, 1, &["a rotation is under way"]);
    ends(&world.run(&["rollback", "billing"]).await, 1, &["hookturn abort billing"]);
    world.sandbox.consumer.replicas()[0].behave(hookturn::sandbox::consumer::Behaviour::Good);
    ends(&world.run(&["abort", "billing"]).await, 0, &["never sent"]);
    world.until("idle", super::LONG, |status| status["phase"] == "idle").await;
    assert_eq!(keys(&world).len(), 1);
    assert!(world.sandbox.handle().patches().is_empty());
    world.nothing_lost().await;
}
