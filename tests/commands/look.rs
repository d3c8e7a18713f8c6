//! The commands that look, and those that change something else than the secret.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use hookturn::{
    sandbox::consumer::Behaviour,
    store::{Opening, Sqlite, Store},
};
use serde_json::Value;

use super::{World, ends};

#[tokio::test(flavor = "multi_thread")]
async fn plan_says_what_stands_in_the_way_and_changes_nothing() {
    let world = World::start(|_| {}).await;
    ends(&world.run(&["plan", "billing"]).await, 1, &["NOT", "hookturn adopt billing", "would not get through"]);
    world.adopt().await;
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    ends(&world.run(&["plan", "billing"]).await, 3, &["unconfirmed", "--unconfirmed"]);
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, true);
    let _daemon = world.daemon();
    world.ready().await;
    world.until("confirmed", super::LONG, |status| status["confirmed"] == true).await;
    let (before, patches) = (world.status().await, world.sandbox.handle().patches().len());
    ends(&world.run(&["plan", "billing"]).await, 0, &["nothing is changed by this", "PATCH", "generation 1, 1 key"]);
    let told: Value = serde_json::from_slice(&world.run(&["plan", "billing", "--json"]).await.stdout).expect("JSON");
    assert_eq!((&told["ready"], told["steps"].as_array().map(Vec::len)), (&Value::Bool(true), Some(7)), "{told:#}");
    world.sandbox.handle().set_active(&world.sandbox.webhook_id, false);
    ends(&world.run(&["plan", "billing"]).await, 1, &["switched off at DialNexa"]);
    let after = world.status().await;
    assert_eq!((&before["rotation"], &before["accepted"]), (&after["rotation"], &after["accepted"]));
    assert_eq!(world.sandbox.handle().patches().len(), patches);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_an_adoption_the_consumers_own_key_is_not_taken_for_a_retired_one() {
    let world = World::start(|_| {}).await;
    let _daemon = world.daemon();
    world.until("a daemon", super::LONG, |status| status["phase"] == "idle").await;
    // What counters in status files say right after a start is not believed.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = world.status().await;
        assert_ne!(status["diagnosis"], "retired-key-seen", "{status:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_probe_finds_out_which_body_works() {
    let world = World::start(|_| {}).await;
    ends(&world.run(&["check", "--probe", "billing"]).await, 1, &["adopt it first"]);
    let _daemon = world.running().await;
    let check = ["check", "--probe", "billing"];
    ends(&world.run(&check).await, 0, &["unparseable: accepts", "json: accepts", "\"unparseable\" works at every replica"]);
    let behave = |behaviour: Behaviour| world.sandbox.consumer.replicas().iter().for_each(|replica| replica.behave(behaviour));
    behave(Behaviour::ParsesFirst);
    ends(&world.run(&check).await, 0, &["set preflight.probe_body = \"json\""]);
    behave(Behaviour::DoesNotVerify);
    ends(&world.run(&check).await, 1, &["does-not-verify", "no probe body tells a right key from a wrong one"]);
    behave(Behaviour::Down);
    ends(&world.run(&check).await, 1, &["unreachable"]);
    behave(Behaviour::Good);
    world.nothing_lost_but_for_the_bad_times();
}

impl World {
    /// Probes are no deliveries: whatever the replicas did, none of them was counted as one.
    fn nothing_lost_but_for_the_bad_times(&self) {
        assert!(self.sandbox.handle().patches().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_lists_shows_and_updates_and_never_under_a_rotation() {
    let world = World::start(|_| {}).await;
    let _daemon = world.running().await;
    let id = world.sandbox.webhook_id.clone();
    let state = || world.sandbox.handle().state().webhooks.into_iter().find(|webhook| webhook.id == id).expect("the webhook");
    ends(&world.run(&["webhook", "list"]).await, 0, &[&id, "[billing]", "active"]);
    ends(&world.run(&["webhook", "show", "billing"]).await, 0, &[&id, "call.completed", "active"]);
    let listed: Value = serde_json::from_slice(&world.run(&["webhook", "list", "--json"]).await.stdout).expect("JSON");
    assert_eq!((&listed[0]["name"], &listed[0]["id"]), (&"billing".into(), &id.as_str().into()), "{listed:#}");

    ends(&world.run(&["webhook", "update", "billing", "--deactivate"]).await, 0, &["switched off"]);
    assert!(!state().is_active);
    let url = state().url;
    ends(&world.run(&["webhook", "update", "billing", "--activate"]).await, 0, &["active"]);
    assert!(state().is_active && state().url == url, "only what was given is sent");
    let events = ["webhook", "update", "billing", "--event", "call.failed", "--event", "call.completed", "--json"];
    let changed: Value = serde_json::from_slice(&world.run(&events).await.stdout).expect("JSON");
    assert_eq!(changed["events"].as_array().map(Vec::len), Some(2), "{changed:#}");
    ends(&world.run(&["webhook", "update", "billing", "--event", "no.such"]).await, 1, &["400"]);
    ends(&world.run(&["webhook", "update", "billing"]).await, 64, &["--url"]);
    ends(&world.run(&["webhook", "update", "billing", "--activate", "--deactivate"]).await, 64, &[]);

    ends(&world.run(&["rotate-now", "billing", "--until", "patched", "--timeout", "60s"]).await, 0, &[]);
    let refused = world.run(&["webhook", "update", "billing", "--url", "http://127.0.0.1:9/"]).await;
    ends(&refused, 1, &["rotation 1 is under way", "must not change under it"]);
    assert_eq!(state().url, url);
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eject_hands_out_what_is_accepted_and_is_written_down() {
    let world = World::start(|_| {}).await;
    ends(&world.run(&["eject", "billing"]).await, 1, &["no secret that hookturn knows"]);
    let _daemon = world.running().await;
    let initial = std::fs::read_to_string(world.sandbox.secret_file()).expect("a secret");
    ends(&world.run(&["eject", "billing"]).await, 0, &["current ", initial.trim()]);
    world.sandbox.handle().traffic_on(&world.sandbox.webhook_id, false);
    ends(&world.run(&["rotate-now", "billing", "--until", "patched", "--timeout", "60s"]).await, 0, &[]);
    let both = world.run(&["eject", "billing"]).await;
    ends(&both, 0, &["current ", "target ", initial.trim()]);
    assert_eq!(String::from_utf8_lossy(&both.stdout).lines().count(), 2);
    let history = world.run(&["history", "billing"]).await;
    ends(&history, 0, &["operator uid="]);
    let handed = String::from_utf8_lossy(&history.stdout).matches("handed").count();
    assert!(handed >= 3 && !super::said(&history).contains(initial.trim()), "{}", super::said(&history));
}

#[test]
fn every_shell_gets_a_script_that_it_can_read() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(env!("CARGO_BIN_EXE_hookturn")).args(["completions", shell]).output().expect("it runs");
        ends(&output, 0, &["rotate-now", "webhook", "completions"]);
        if Command::new(shell).arg("--version").output().is_err() {
            println!("skipped: {shell} is not here to read its script");
            continue;
        }
        let mut child = Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
        std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), &output.stdout).expect("written");
        ends(&child.wait_with_output().expect("an end"), 0, &[]);
    }
}

/// A daemon has the store's lock some time before it takes commands: a command that comes between waits, and says for what.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_while_a_daemon_starts_waits_for_it() {
    let world = World::start(|_| {}).await;
    world.adopt().await;
    let opening = Opening { command: "hookturn run".to_owned(), at: 0 };
    let starting = Sqlite::open(&world.dir.path().join("hookturn.db"), opening).await.expect("the store");
    let ended = tokio::spawn(world.command(&["pause", "billing"]).output());
    // Longer than any command waits for another one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!ended.is_finished(), "it waits");
    starting.close().await;
    let ended = ended.await.expect("a task").expect("it runs");
    ends(&ended, 0, &["hookturn run, pid", "takes no commands yet: waiting for it"]);
}
