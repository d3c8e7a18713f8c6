//! DialNexa refuses, or has nothing to deliver.

use std::{fs, time::Duration};

use hookturn::sandbox::provider::{Fault, Injection, Operation};

use super::{LONG, World, ends, said, tells};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_api_key_is_told_before_anything_is_made() {
    let world = World::start(|_| {}).await;
    let key = world.sandbox.dir().join("api-key");
    let right = fs::read(&key).expect("a key");
    world.adopt().await;
    fs::write(&key, "key_wrong:whatever").expect("written");
    for command in [&["rotate-now", "billing", "--unconfirmed"][..], &["plan", "billing"], &["check"], &["webhook", "list"]] {
        ends(&world.run(command).await, 1, &["refuses the API key (401)"]);
    }
    let status = world.status().await;
    assert_eq!((&status["rotation"], &status["phase"]), (&0.into(), &"idle".into()), "{status:#}");
    fs::write(&key, right).expect("written");
    let _daemon = world.daemon();
    world.ready().await;
    world.until("confirmed", LONG, |status| status["confirmed"] == true).await;
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_that_is_revoked_in_mid_rotation_is_a_hold() {
    let world = World::start(|_| {}).await;
    let mut daemon = world.running().await;
    world.sandbox.handle().inject(Injection { sticky: true, ..Injection::once(Fault::Unauthorized).on(Operation::Patch) });
    let held = world.run(&["rotate-now", "billing", "--timeout", "60s"]).await;
    ends(&held, 1, &["api-key-refused", "both secrets stay accepted", "hookturn resume billing"]);
    ends(&world.run(&["status", "--check"]).await, 1, &["api-key-refused"]);
    // As the way out says: the key is replaced, hookturn restarted.
    world.sandbox.handle().clear_faults();
    daemon.kill().await.expect("killed");
    let _daemon = world.daemon();
    world.ready().await;
    assert!(world.run(&["resume", "billing"]).await.status.success());
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_inactive_webhook_is_told_before_anything_is_made_and_held_later() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    let (handle, id) = (world.sandbox.handle(), world.sandbox.webhook_id.clone());
    handle.set_active(&id, false);
    ends(&world.run(&["rotate-now", "billing"]).await, 1, &["inactive", "hookturn webhook update billing --activate"]);
    handle.set_active(&id, true);
    handle.delete(&id);
    ends(&world.run(&["rotate-now", "billing"]).await, 1, &[&id, "404", "nothing was changed"]);
    ends(&world.run(&["check"]).await, 1, &[&id, "404"]);
    let status = world.status().await;
    assert_eq!(status["rotation"], 0, "{status:#}");
    handle.restore(&id);
    handle.inject(Injection::once(Fault::NotFound).on(Operation::Patch));
    ends(&world.run(&["rotate-now", "billing", "--timeout", "60s"]).await, 1, &["webhook-gone", "hookturn resume billing"]);
    assert!(world.run(&["resume", "billing"]).await.status.success());
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_value_is_a_hold_that_another_value_leaves() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    world.sandbox.handle().inject(Injection::once(Fault::ValueRefused).on(Operation::Patch));
    let held = world.run(&["rotate-now", "billing", "--timeout", "60s"]).await;
    ends(&held, 1, &["target-refused", "hookturn supersede billing", "hookturn rollback billing"]);
    assert!(world.run(&["supersede", "billing"]).await.status.success());
    world.rotates(&[]).await;
}

/// The answer is to a secret that is the target no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_turn_back_or_aside_while_a_request_is_under_way() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    for way in ["rollback", "supersede"] {
        let patches = world.sandbox.handle().patch_count();
        world.sandbox.handle().inject(Injection::once(Fault::Slow { ms: 700 }).on(Operation::Patch));
        let began = world.run(&["rotate-now", "billing", "--until", "retired", "--timeout", "60s"]);
        let turned = async {
            let began = std::time::Instant::now();
            while world.sandbox.handle().patch_count() == patches {
                assert!(began.elapsed() < LONG, "{way}: no PATCH came: {}", world.log());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.run(&[way, "billing"]).await
        };
        let (_, turned) = tokio::join!(began, turned);
        assert!(turned.status.success(), "{way}: {}", said(&turned));
        if way == "rollback" {
            // It is on its way back to the very secret that leaked.
            ends(&world.run(&["rotate-now", "billing", "--compromised"]).await, 1, &["hookturn supersede billing"]);
        }
        world.until("the end", LONG, |status| status["phase"] == "idle").await;
        let told = world.run(&["explain", "billing", "--json"]).await.stdout;
        let explained: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
        let attempts = explained["story"]["attempts"].as_array().expect("attempts");
        assert!(attempts.len() > 1 && attempts.iter().all(|attempt| attempt["outcome"].is_string()), "{way}: {explained:#}");
    }
    assert!(!world.log().contains("stored already"), "{}", world.log());
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_dialnexa_exits_69_before_a_rotation_and_is_waited_for_in_one() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    world.sandbox.handle().inject(Injection { sticky: true, ..Injection::once(Fault::Unavailable).on(Operation::Get) });
    ends(&world.run(&["rotate-now", "billing"]).await, 69, &["503", "nothing was changed"]);
    world.sandbox.handle().clear_faults();
    world.sandbox.handle().inject(Injection { sticky: true, ..Injection::once(Fault::Unavailable).on(Operation::Patch) });
    let waits = world.run(&["rotate-now", "billing", "--timeout", "4s"]).await;
    ends(&waits, 3, &["ambiguous", "503", "goes on in the daemon"]);
    world.sandbox.handle().clear_faults();
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traffic_it_waits_accepts_both_and_says_so() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    let id = world.sandbox.webhook_id.clone();
    world.sandbox.handle().traffic_on(&id, false);
    let waits = world.run(&["rotate-now", "billing", "--timeout", "8s"]).await;
    ends(&waits, 3, &["no-traffic", "goes on in the daemon", "both are accepted until then"]);
    let status = world.status().await;
    tells(&status, &["no-traffic"]);
    assert_eq!(status["accepted"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert_eq!(world.run(&["status", "--check"]).await.status.code(), Some(0), "a quiet hour calls nobody");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for replica in world.sandbox.consumer.replicas() {
        assert_eq!(replica.kids().len(), 2, "{}", said(&waits));
    }
    world.sandbox.handle().traffic_on(&id, true);
    world.rotates(&[]).await;
}
