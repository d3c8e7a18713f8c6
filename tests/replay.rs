//! What a real daemon wrote into its event log leads to the very record in its store; and where a log was altered, it is said.

mod world;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use hookturn::sandbox::provider::{Cut, Fault, Injection, Operation};
use sqlx::{ConnectOptions, Connection};
use world::{World, ends, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_with_faults_and_a_kill_replays_to_the_record_in_the_store_and_its_log_holds_no_secret() {
    let world = World::start(|_| {}).await;
    let nothing = world.run(&["replay", "billing"]).await;
    assert_eq!(nothing.status.code(), Some(64), "{}", said(&nothing));
    world.adopt().await;
    for fault in [Fault::LyingOk, Fault::ApplyThenDrop { cut: Cut::default() }, Fault::Unavailable] {
        world.sandbox.handle().inject(Injection::once(fault).on(Operation::Patch));
    }
    let keystore = world.dir.path().join("sandbox");
    let mut secrets = secrets_below(&keystore);
    let mut daemon = world.daemon();
    // Only a daemon listens for deliveries.
    world.until("confirmed", Duration::from_secs(60), |status| status["confirmed"] == true).await;
    let begun = world.run(&["rotate-now", "billing", "--unconfirmed", "--until", "patched", "--timeout", "60s"]).await;
    assert_eq!(begun.status.code(), Some(0), "{}\nlog:\n{}", said(&begun), world.log());
    secrets.append(&mut secrets_below(&keystore));
    assert!(secrets.len() >= 2, "both secrets are in the keystore");
    daemon.kill().await.expect("killed");
    let mut daemon = world.daemon();
    world.until("retired", Duration::from_secs(120), |status| status["phase"] == "idle" && status["completed"] == 1).await;

    let exported = world.dir.path().join("events.log");
    let file = exported.display().to_string();
    // Beside the running daemon, and it does not notice.
    let replayed = world.run(&["replay", "billing", "--export", &file]).await;
    assert_eq!(replayed.status.code(), Some(0), "{}", said(&replayed));
    daemon.kill().await.expect("killed");
    world.nothing_lost().await;
    let result = world.run(&["replay", "billing", "--json"]).await;
    assert_eq!(result.status.code(), Some(0), "{}", said(&result));
    let result: serde_json::Value = serde_json::from_slice(&result.stdout).expect("json");
    // The adoption, and the daemon twice.
    assert!(result["lives"].as_u64() >= Some(3) && result["events"].as_u64() > Some(20), "{result}");
    assert_eq!(result["phase"], "idle");

    let log = fs::read_to_string(&exported).expect("the log");
    assert!(log.contains("send-patch") && log.contains("ambiguous"), "a rotation with a fault is in it");
    assert!(!log.contains("whsec_"), "a secret is in the log");
    for secret in &secrets {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    an_altered_log_is_found_out(&world, &log).await;
}

async fn an_altered_log_is_found_out(world: &World, log: &str) {
    let file = world.dir.path().join("altered.log");
    let replay = |text: String| {
        fs::write(&file, text).expect("write");
        let file = file.display().to_string();
        async move { world.run(&["replay", "--file", &file]).await }
    };
    let lines: Vec<&str> = log.lines().collect();
    let whole = replay(log.to_owned()).await;
    assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));

    // The answer to the first PATCH is left out: the next event that rests on it is the first that differs.
    let answer = lines.iter().position(|line| line.contains("{\"patched\":")).expect("an answer");
    let without: Vec<&str> = [&lines[..answer], &lines[answer + 1..]].concat();
    let parted = replay(without.join("\n")).await;
    assert_eq!(parted.status.code(), Some(1), "{}", said(&parted));
    let number = event_named_in(&said(&parted));
    assert!(number > answer as u64, "the lines before it are as they were: {}", said(&parted));

    // The end that the store is said to have is another.
    let head = lines[0].replace("\"phase\":\"idle\"", "\"phase\":\"idle\",\"paused\":true").replacen("\"paused\":false,", "", 1);
    let parted = replay([&[head.as_str()], &lines[1..]].concat().join("\n")).await;
    assert_eq!(parted.status.code(), Some(1), "{}", said(&parted));
    assert!(said(&parted).contains("paused: recorded true, replayed false"), "{}", said(&parted));

    for (text, why) in [("", "it is empty"), ("{}", "line 1 is not"), (&format!("{}\nnonsense", lines[0]), "line 2 is not")] {
        let refused = replay(text.to_owned()).await;
        assert_eq!(refused.status.code(), Some(69), "{}", said(&refused));
        assert!(said(&refused).contains(why), "{}", said(&refused));
    }
    let nothing = replay(lines[0].to_owned()).await;
    assert_eq!(nothing.status.code(), Some(3), "{}", said(&nothing));
}

/// Only who holds its lock may change a store, so one of an earlier version is not read but said to be one.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_an_earlier_hookturn_says_so_until_a_daemon_has_brought_it_up_to_date() {
    let world = World::start(|_| {}).await;
    let path = world.dir.path().join("hookturn.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut first = options.connect().await.expect("an SQLite file");
    sqlx::raw_sql(include_str!("../src/store/sqlite/migrations/0001_first.sql")).execute(&mut first).await.expect("schema 1");
    first.close().await.expect("closed");
    for looking in [["replay", "billing"], ["status", "billing"], ["history", "billing"]] {
        let refused = world.run(&looking).await;
        ends(&refused, 69, &["an earlier hookturn wrote it (schema 1", "start the daemon once"]);
    }
    let mut daemon = world.running().await;
    daemon.kill().await.expect("killed");
    ends(&world.run(&["replay", "billing"]).await, 0, &[]);
}

fn event_named_in(said: &str) -> u64 {
    let after = said.split("\nevent ").nth(1).unwrap_or_else(|| panic!("no event is named: {said}"));
    after.split(',').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number: {said}"))
}

/// Every secret in the files of the sandbox, keystores among them.
fn secrets_below(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.append(&mut secrets_below(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let ends = |c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c));
            found.extend(text.split("whsec_").skip(1).filter_map(|rest| rest.split(ends).next()).map(str::to_owned));
        }
    }
    found
}
