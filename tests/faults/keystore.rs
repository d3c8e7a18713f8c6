//! A keystore file that somebody else writes, or half writes.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{LONG, World, ends, said, tells};

fn content(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a keystore")).expect("JSON")
}

/// As an editor or a deployment does it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("by-hand");
    fs::write(&beside, text).expect("written");
    fs::rename(&beside, path).expect("renamed");
}

/// A rotation that stands still in Patch: DialNexa answers nothing.
async fn rotation_under_way(world: &World) -> tokio::process::Child {
    let daemon = world.running().await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    let begun = world.run(&["rotate-now", "billing", "--until", "patched", "--timeout", "60s"]).await;
    assert!(begun.status.success(), "{}", said(&begun));
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_secret_is_told_and_nothing_is_changed() {
    let world = World::start(|_| {}).await;
    let before = fs::read(&world.sandbox.keystore).expect("a keystore");
    let typo = world.dir.path().join("typo");
    let right = fs::read_to_string(world.sandbox.secret_file()).expect("a secret");
    fs::write(&typo, format!("{right}x")).expect("written");
    let typo = typo.display().to_string();
    let adopt = ["adopt", "billing", "--secret-file", &typo];
    ends(&world.run(&adopt).await, 1, &["secrets.json", "another secret", "nothing was changed", "--from-keystore"]);
    for (text, phrase) in [("", "is empty"), ("two words", "character 4"), (" x", "character 1"), ("x\n\n", "character 2")] {
        fs::write(&typo, text).expect("written");
        ends(&world.run(&adopt).await, 64, &[&typo, phrase]);
    }
    assert_eq!(fs::read(&world.sandbox.keystore).expect("a keystore"), before);
    let status = world.status().await;
    assert_eq!(status["adopted"], false, "{status:#}");
}

/// Where the keystore cannot tell, the missing confirmation does.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_secret_on_an_empty_keystore_stays_unconfirmed_until_the_right_one_comes() {
    let world = World::start(|options| options.per_second = 5.0).await;
    let before = fs::read(&world.sandbox.keystore).expect("a keystore");
    fs::remove_file(&world.sandbox.keystore).expect("removed");
    let typo = world.dir.path().join("typo");
    fs::write(&typo, "whsec_mistyped").expect("written");
    let adopted = world.run(&["adopt", "billing", "--secret-file", &typo.display().to_string()]).await;
    assert!(adopted.status.success(), "{}", said(&adopted));
    ends(&world.run(&["rotate-now", "billing"]).await, 1, &["unconfirmed", "a wrong one would go unnoticed"]);
    world.adopt().await;
    let _daemon = running_adopted(&world).await;
    mended(&world).await;
    drop(before);
}

async fn running_adopted(world: &World) -> tokio::process::Child {
    let daemon = world.daemon();
    world.ready().await;
    world.until("confirmed", LONG, |status| status["confirmed"] == true).await;
    daemon
}

async fn mended(world: &World) {
    let done = world.run(&["rotate-now", "billing", "--until", "retired", "--timeout", "90s"]).await;
    assert_eq!(done.status.code(), Some(0), "{}\nlog:\n{}", said(&done), world.log());
    let keys = content(&world.sandbox.keystore)["keys"].as_array().expect("keys").len();
    assert_eq!(keys, 1, "the mistyped one is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_taken_out_by_hand_is_put_back_before_anything_is_sent() {
    let world = World::start(|_| {}).await;
    let _daemon = rotation_under_way(&world).await;
    let mut changed = content(&world.sandbox.keystore);
    // The old one: what DialNexa signs with now is not touched, or deliveries would be lost by this very hand.
    changed["keys"].as_array_mut().expect("keys").retain(|key| key["state"] == "pending");
    replace(&world.sandbox.keystore, &changed.to_string());
    // Looked at every 30 s, and before the retire in any case.
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    world.rotates(&[]).await;
    let history = world.run(&["history", "billing"]).await;
    assert!(said(&history).contains("keystore"), "{}", said(&history));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_file_is_told_with_its_place_and_the_rotation_goes_on_once_it_is_whole() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    let whole = fs::read_to_string(&world.sandbox.keystore).expect("a keystore");
    replace(&world.sandbox.keystore, &whole[..whole.len() / 2]);
    let stuck = world.run(&["rotate-now", "billing", "--timeout", "3s"]).await;
    ends(&stuck, 3, &["keystore-unreachable", "secrets.json", "half written", "move it away", "goes on in the daemon"]);
    ends(&world.run(&["check"]).await, 78, &["secrets.json", "half written"]);
    assert_eq!(fs::read_to_string(&world.sandbox.keystore).expect("a keystore"), whole[..whole.len() / 2], "it was overwritten");
    assert!(world.sandbox.handle().patches().is_empty(), "a PATCH was sent");
    // The way out that the message names.
    fs::rename(&world.sandbox.keystore, world.sandbox.keystore.with_extension("aside")).expect("moved away");
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_generation_of_somebody_else_is_taken_over_with_its_keys() {
    let world = World::start(|_| {}).await;
    let _daemon = rotation_under_way(&world).await;
    let mut newer = content(&world.sandbox.keystore);
    newer["generation"] = json!(newer["generation"].as_u64().unwrap_or(1) + 40);
    let stranger = json!({"kid": "k_stranger", "state": "current", "secret": "whsec_stranger", "secret_encoding": "utf8"});
    newer["keys"].as_array_mut().expect("keys").push(stranger);
    replace(&world.sandbox.keystore, &newer.to_string());
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    world.rotates(&[]).await;
    assert!(content(&world.sandbox.keystore)["generation"].as_u64() > newer["generation"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_generation_found_at_the_start_is_a_hold_that_rolls_forward() {
    let world = World::start(|_| {}).await;
    world.adopt().await;
    let done = world.run(&["rotate-now", "billing", "--unconfirmed", "--until", "retired", "--timeout", "90s"]).await;
    assert!(done.status.success(), "{}", said(&done));
    let mut newer = content(&world.sandbox.keystore);
    newer["generation"] = json!(newer["generation"].as_u64().unwrap_or(1) + 40);
    replace(&world.sandbox.keystore, &newer.to_string());
    let _daemon = world.daemon();
    world.ready().await;
    let held = world.until("the hold", LONG, |status| status["phase"] == "hold").await;
    tells(&held, &["restored", "from different times", "hookturn rotate-now billing"]);
    ends(&world.run(&["status", "--check"]).await, 1, &["restored"]);
    // The way out that it names.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let done = world.run(&["rotate-now", "billing", "--unconfirmed", "--until", "retired", "--timeout", "90s"]).await;
    assert_eq!(done.status.code(), Some(0), "{}\nlog:\n{}", said(&done), world.log());
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_back_again_and_again_is_a_hold_and_nothing_is_retired() {
    let world = World::start(|_| {}).await;
    let mut daemon = rotation_under_way(&world).await;
    let accepted = content(&world.sandbox.keystore);
    let mut old = accepted.clone();
    old["keys"].as_array_mut().expect("keys").retain(|key| key["state"] != "pending");
    // A deployment tool that does not know of hookturn. Each start reads the keystore at once, which saves the test the 30 s.
    let mut held = Value::Null;
    for _ in 0..6 {
        replace(&world.sandbox.keystore, &old.to_string());
        daemon.kill().await.expect("killed");
        daemon = world.daemon();
        world.ready().await;
        let seen = world
            .until("put right or held", LONG, |status| {
                status["phase"] == "hold"
                    || content(&world.sandbox.keystore)["keys"].as_array().is_some_and(|keys| keys.len() == 2)
            })
            .await;
        if seen["phase"] == "hold" {
            held = seen;
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tells(&held, &["keystore-contested", "somebody else keeps writing the keystore", "hookturn resume billing"]);
    ends(&world.run(&["status", "--check"]).await, 1, &["keystore-contested"]);
    ends(&world.run(&["rotate-now", "billing", "--timeout", "5s"]).await, 1, &["keystore-contested", "hookturn resume billing"]);
    // The other writer was stopped.
    replace(&world.sandbox.keystore, &accepted.to_string());
    assert!(world.run(&["resume", "billing"]).await.status.success());
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    world.rotates(&[]).await;
}
