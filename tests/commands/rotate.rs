//! `rotate-now`, its ways to end, and what a SIGTERM lets finish.

use std::time::{Duration, Instant};

use hookturn::sandbox::provider::{Fault, Injection, Operation};
use serde_json::Value;

use super::{LONG, World, ends, said};

/// Every line of stdout is an object.
fn lines(output: &std::process::Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_watches_until_the_asked_state_and_says_each_change_as_json() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    for until in ["pushed", "patched"] {
        let done = world.run(&["rotate-now", "billing", "--until", until, "--json", "--timeout", "60s"]).await;
        ends(&done, 0, &[]);
        let told = lines(&done);
        let (last, changes) = told.split_last().expect("a verdict");
        assert_eq!((&last["until"], &last["reached"], &last["exit"]), (&until.into(), &true.into(), &0.into()), "{last:#}");
        assert!(last["verdict"].as_str().is_some_and(|text| text.contains("goes on in the daemon")), "{last:#}");
        assert!(changes.iter().all(|line| line["name"] == "billing" && line["phase"].is_string()), "{changes:#?}");
    }
    let waits = world.run(&["rotate-now", "billing", "--until", "verified", "--json", "--timeout", "2s"]).await;
    ends(&waits, 3, &[]);
    let verdict = lines(&waits).pop().expect("a verdict");
    assert_eq!((&verdict["reached"], &verdict["exit"]), (&false.into(), &3.into()), "{verdict:#}");
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    let done = world.run(&["rotate-now", "billing", "--timeout", "60s"]).await;
    ends(&done, 0, &["joined rotation 1", "verified"]);
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_begin_says_why_and_several_end_with_the_worst() {
    let world = World::start(|_| {}).await;
    ends(&world.run(&["rotate-now", "nobody"]).await, 64, &["no webhook \"nobody\"", "billing"]);
    ends(&world.run(&["rotate-now", "billing", "--timeout", "soon"]).await, 64, &["5s"]);
    ends(&world.run(&["rotate-now", "billing", "--until", "soon"]).await, 64, &["retired"]);
    ends(&world.run(&["rotate-now", "billing"]).await, 1, &["hookturn adopt billing"]);
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    world.adopt().await;
    ends(&world.run(&["rotate-now", "billing"]).await, 1, &["--unconfirmed"]);
    let text = std::fs::read_to_string(&world.config).expect("a configuration");
    let other = "\n[[webhook]]\nname = \"other\"\nid = \"whk_other\"\nkeystore = { kind = \"file\", path = \"other.json\" }\n\
                 preflight = { probe = [\"http://127.0.0.1:9/\"] }\n";
    std::fs::write(&world.config, text + other).expect("written");
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    let _daemon = world.daemon();
    world.ready().await;
    world.until("confirmed", LONG, |status| status["confirmed"] == true).await;
    let both = world.run(&["rotate-now", "billing", "other", "billing", "--timeout", "60s"]).await;
    ends(&both, 1, &["other: not begun", "billing: verified"]);
    ends(&world.run(&["pause", "other"]).await, 0, &[]);
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_is_over_without_a_delivery_once_dialnexa_has_said_yes() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    assert!(world.sandbox.handle().settled(LONG).await);
    let done = world.run(&["rotate-now", "billing", "--compromised", "--until", "retired", "--timeout", "60s"]).await;
    ends(&done, 0, &["refused by every replica"]);
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sigterm_lets_the_patch_under_way_be_answered_and_the_answer_is_kept() {
    // A PATCH has half of the quarantine at the most.
    let world = World::start(|options| options.quarantine = Duration::from_secs(20)).await;
    let mut daemon = world.running().await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    world.sandbox.handle().inject(Injection::once(Fault::Slow { ms: 1_000 }).on(Operation::Patch));
    ends(&world.run(&["rotate-now", "billing", "--until", "pushed", "--timeout", "60s"]).await, 0, &[]);
    let began = Instant::now();
    while world.sandbox.handle().patches().is_empty() {
        assert!(began.elapsed() < LONG, "no PATCH came\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = rustix::process::Pid::from_raw(daemon.id().expect("it runs") as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
    assert_eq!(daemon.wait().await.expect("an end").code(), Some(0), "{}", world.log());
    assert!(!world.dir.path().join("admin.sock").exists(), "the socket stayed");
    let explained = world.run(&["explain", "billing"]).await;
    ends(&explained, 0, &["applied: 200"]);
    let status = world.status().await;
    assert_eq!((&status["phase"], &status["patched"]), (&"patch".into(), &true.into()), "{status:#}");
    // A second process goes on from there. Where no delivery comes first it sends the same value again, never another.
    let _daemon = world.daemon();
    world.ready().await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    world.rotates(&[]).await;
    let labels = world.sandbox.handle().patches().into_iter().map(|patch| patch.label);
    assert_eq!(labels.collect::<std::collections::BTreeSet<_>>().len(), 1, "{}", said(&explained));
}
