use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use hookturn::config::{Config, Credential};
use tokio::io::AsyncWriteExt;

use super::{World, ends};

fn written(dir: &Path) -> Config {
    Config::load(&dir.join("hookturn.toml")).expect("a sound configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_keys_come_from_systemd_where_that_is_said_and_from_files_elsewhere() {
    let world = World::start(|_| {}).await;
    let (base_url, key) = (world.sandbox.base_url(), world.sandbox.dir().join("api-key").display().to_string());
    for (credentials, phrases) in [
        (None, &["hookturn -c", "run              # stays", "check --probe billing"][..]),
        (Some("systemd"), &["systemctl start hookturn", "systemctl edit hookturn", "LoadCredential=hookturn-sealing-key:/"]),
    ] {
        let dir = world.dir.path().join(credentials.unwrap_or("files"));
        let at = dir.display().to_string();
        let mut arguments = vec!["init", "--dir", &at, "--base-url", &base_url, "--api-key-file", &key, "--yes"];
        arguments.extend(credentials.into_iter().flat_map(|who| ["--credentials", who]));
        ends(&world.run(&arguments).await, 0, phrases);
        let config = written(&dir);
        let systemd = |credential: &Credential| matches!(credential, Credential::Systemd(_));
        let found = (systemd(&config.dialnexa.api_key), systemd(&config.store.sealing_key));
        assert_eq!(found, (credentials.is_some(), credentials.is_some()));
        assert_eq!(config.webhooks[0].id, world.sandbox.webhook_id);
    }
}

/// On a terminal, which `script` provides.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_shows_the_webhooks_and_takes_enter_for_the_usual() {
    if Command::new("script").arg("--version").output().is_err() {
        return println!("skipped: init on a terminal needs script (Debian package bsdutils)");
    }
    let world = World::start(|_| {}).await;
    world.sandbox.handle().add_webhook(
        "whk_other000001",
        "http://127.0.0.1:9/other",
        &["call.failed"],
        hookturn::secret::Secret::parse("whsec_other").expect("a secret"),
    );
    let dir = world.dir.path().join("asked");
    let (base_url, key) = (world.sandbox.base_url(), world.sandbox.dir().join("api-key").display().to_string());
    let program = env!("CARGO_BIN_EXE_hookturn");
    let line = format!("{program} init --dir {} --base-url {base_url} --api-key-file {key}", dir.display());
    let mut child = tokio::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script");
    let mut stdin = child.stdin.take().expect("stdin");
    // A number that is none, the second webhook by its id, a name, Enter for the keystore, two replicas.
    stdin.write_all(b"7\nwhk_other000001\norders\n\nhttp://10.0.0.1:9/hook http://10.0.0.2:9/hook\n").await.expect("typed");
    let output = child.wait_with_output().await.expect("an end");
    drop(stdin);
    ends(&output, 0, &["whk_other000001", "http://127.0.0.1:9/other", "a number from 1 to 2", "written:"]);
    let config = written(&dir);
    let webhook = &config.webhooks[0];
    assert_eq!((webhook.name.as_str(), webhook.id.as_str()), ("orders", "whk_other000001"));
    assert_eq!(webhook.preflight.probe.len(), 2);
    let text = fs::read_to_string(dir.join("hookturn.toml")).expect("a file");
    assert!(text.contains("/var/lib/hookturn-keys/orders/secrets.json"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_or_no_key_writes_nothing() {
    let world = World::start(|_| {}).await;
    let (base_url, key) = (world.sandbox.base_url(), world.dir.path().join("key"));
    let dir = world.dir.path().join("none");
    let (at, key_at) = (dir.display().to_string(), key.display().to_string());
    let arguments = ["init", "--dir", &at, "--base-url", &base_url, "--api-key-file", &key_at, "--yes"];
    ends(&world.run(&arguments).await, 78, &[&key_at, "there is no such file", "--offline"]);
    fs::write(&key, "key_wrong:x").expect("written");
    ends(&world.run(&arguments).await, 1, &["refuses the API key (401)"]);
    assert!(!dir.exists());
}
