//! What keeps a daemon from starting.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use hookturn::{
    secret::SealingKey,
    store::{Opening, Sqlite, Store},
};

use super::{World, ends};

/// Each line is put in the place of another; all of it is in tests/config.rs, this shows the way to the exit code.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_exits_78_names_the_line_and_the_way_out() {
    // A status file would be a proof.
    let world = World::start(|options| options.status_every = None).await;
    let good = fs::read_to_string(&world.config).expect("a configuration");
    let line_of = |start: &str| good.lines().find(|line| line.starts_with(start)).expect("a line").to_owned();
    let twin = format!(
        "[[webhook]]\nname = \"other\"\nid = {}\nkeystore = {{ kind = \"file\", path = \"o.json\" }}\npreflight = {{ probe = [\"http://127.0.0.1:9/\"] }}\n\n[[webhook]]",
        line_of("id = ").trim_start_matches("id = ")
    );
    for (start, wrong, phrases) in [
        ("quarantine", "quarantin = \"2s\"", &["quarantin", "`quarantine`"][..]),
        ("quarantine", "schedule = \"0 25 * * *\"", &["not a cron expression", "hour 0-23"]),
        ("quarantine", "quarantine = \"2\"", &["has no unit", "15m"]),
        ("preflight", "preflight = { wait = \"1s\" }", &["accept a new secret", "preflight.probe"]),
        ("base_url", "base_url = \"http://api.dialnexa.com/v1\"", &["plain http", "https://"]),
        ("[[webhook]]", &twin, &["whk_sandbox00001"]),
    ] {
        fs::write(&world.config, good.replacen(&line_of(start), wrong, 1)).expect("written");
        for command in [&["check"][..], &["run"], &["rotate-now", "billing"]] {
            let output = world.run(command).await;
            ends(&output, 78, phrases);
            ends(&output, 78, &[&format!("{}:", world.config.display())]);
        }
    }
    fs::write(&world.config, &good).expect("written");
    assert!(world.run(&["check"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_credential_exits_78_and_touches_nothing() {
    let world = World::start(|_| {}).await;
    let key = world.sandbox.dir().join("api-key");
    let content = fs::read(&key).expect("a key");
    fs::remove_file(&key).expect("removed");
    for command in [&["run"][..], &["check"], &["rotate-now", "billing"], &["webhook", "list"]] {
        ends(&world.run(command).await, 78, &["api-key", "there is no such file"]);
    }
    fs::write(&key, "").expect("written");
    ends(&world.run(&["run"]).await, 78, &["api-key", "it is empty"]);
    fs::write(&key, [0xff, 0xfe]).expect("written");
    ends(&world.run(&["run"]).await, 78, &["api-key", "not text"]);
    assert!(!world.dir.path().join("hookturn.db").exists(), "the store was touched");
    fs::write(&key, content).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let checked = world.run(&["check"]).await;
    assert!(checked.status.success() && String::from_utf8_lossy(&checked.stdout).contains("chmod 0600"), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sealing_key_is_told_from_a_broken_one_and_changes_nothing() {
    let world = World::start(|_| {}).await;
    world.adopt().await;
    let key = world.sandbox.dir().join("sealing-key");
    let right = fs::read(&key).expect("a key");
    fs::write(&key, &*SealingKey::generate().expect("a key").encode()).expect("written");
    for command in [&["run"][..], &["rotate-now", "billing", "--unconfirmed"]] {
        ends(&world.run(command).await, 1, &["billing", "wrong sealing key"]);
    }
    fs::write(&key, "short").expect("written");
    ends(&world.run(&["run"]).await, 78, &["hookturn keygen"]);
    fs::write(&key, right).expect("written");
    let done = world.run(&["rotate-now", "billing", "--unconfirmed", "--until", "retired", "--timeout", "90s"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", super::said(&done));
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_exits_75_and_names_the_first() {
    let world = World::start(|_| {}).await;
    let daemon = world.running().await;
    let pid = daemon.id().expect("it runs").to_string();
    ends(&world.run(&["run"]).await, 75, &["hookturn.db", "is in use by hookturn run", &pid]);
    // The first one goes on undisturbed.
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_works_by_itself_is_named_as_the_holder() {
    let world = World::start(|_| {}).await;
    let opening = Opening { command: "hookturn rotate-now billing".to_owned(), at: 1_800_000_000_000 };
    let held = Sqlite::open(&world.dir.path().join("hookturn.db"), opening).await.expect("a store");
    ends(&world.run(&["run"]).await, 75, &["is in use by hookturn rotate-now billing", "2027-01-15"]);
    held.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_version_is_left_alone() {
    let world = World::start(|_| {}).await;
    world.adopt().await;
    let store = world.dir.path().join("hookturn.db");
    let version = rewrite(&store, 9);
    let before = fs::read(&store).expect("a store");
    for command in [&["run"][..], &["rotate-now", "billing", "--unconfirmed"], &["adopt", "billing", "--from-keystore"]] {
        ends(&world.run(command).await, 1, &["hookturn.db", "newer hookturn", "install"]);
    }
    ends(&world.run(&["check"]).await, 78, &["newer hookturn"]);
    assert_eq!(fs::read(&store).expect("a store"), before, "it was written to");
    rewrite(&store, version);
    assert!(world.run(&["status"]).await.status.success());
}

/// SQLite's user_version lies in the header, at byte 60.
fn rewrite(store: &std::path::Path, version: u32) -> u32 {
    let mut bytes = fs::read(store).expect("a store");
    let before = u32::from_be_bytes(bytes[60..64].try_into().expect("four bytes"));
    bytes[60..64].copy_from_slice(&version.to_be_bytes());
    fs::write(store, bytes).expect("written");
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_named() {
    let world = World::start(|_| {}).await;
    let taken = std::net::TcpListener::bind(world.sandbox.deliveries).expect("the port");
    ends(&world.run(&["run"]).await, 69, &[&world.sandbox.deliveries.to_string()]);
    drop(taken);
    let socket = world.dir.path().join("admin.sock");
    fs::write(&socket, "").expect("written");
    ends(&world.run(&["run"]).await, 75, &["admin.sock", "not a socket"]);
    assert!(socket.exists(), "somebody's file was removed");
}

/// Without this a missing directory would be a daemon that restarts for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_missing_or_belongs_to_somebody_else_is_named() {
    let world = World::start(|_| {}).await;
    let good = fs::read_to_string(&world.config).expect("a configuration");
    let store = world.dir.path().join("hookturn.db").display().to_string();
    fs::write(&world.config, good.replace(&store, "/nowhere/at/all/hookturn.db")).expect("written");
    ends(&world.run(&["run"]).await, 69, &["/nowhere/at/all"]);
    ends(&world.run(&["check", "--offline"]).await, 78, &["/nowhere/at/all"]);
    // Root may write everywhere: somebody else is asked to.
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return println!("skipped: a directory of somebody else's needs root and setpriv");
    }
    fs::write(&world.config, &good).expect("written");
    fs::set_permissions(&world.config, fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_hookturn"), "-c"]);
    let output = nobody.arg(&world.config).args(["check", "--offline"]).output().expect("it runs");
    ends(&output, 78, &["api-key", "ermission denied"]);
}
