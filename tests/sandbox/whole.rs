use std::{os::unix::fs::PermissionsExt, time::Duration};

use crate::stage::{eventually, secret};
use hookturn::{
    sandbox::{Sandbox, SandboxOptions, consumer::Behaviour},
    secret::SealingKey,
};

fn options(dir: &std::path::Path) -> SandboxOptions {
    SandboxOptions {
        refresh: Duration::from_millis(10),
        status_every: Some(Duration::from_millis(10)),
        per_second: 0.0,
        ..SandboxOptions::new(dir.join("world"))
    }
}

async fn settled(sandbox: &Sandbox) {
    assert!(sandbox.handle().settled(Duration::from_secs(120)).await, "deliveries are still on their way");
}

#[tokio::test]
async fn traffic_flows_from_the_provider_to_every_replica() {
    let dir = tempfile::tempdir().expect("a directory");
    let sandbox = Sandbox::start(SandboxOptions { per_second: 100.0, ..options(dir.path()) }).await.expect("a sandbox");
    eventually("traffic", || sandbox.handle().totals().accepted > 10).await;
    assert!(sandbox.consumer.replicas().iter().all(|replica| replica.counts().accepted > 0));
    sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_thousands_is_accepted_to_the_last_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let sandbox = Sandbox::start(options(dir.path())).await.expect("a sandbox");
    for _ in 0..10 {
        assert_eq!(sandbox.handle().deliver(&sandbox.webhook_id, 300), 300);
        settled(&sandbox).await;
    }
    let totals = sandbox.handle().totals();
    assert_eq!((totals.sent, totals.accepted, totals.attempts_failed), (3_000, 3_000, 0));
    let counted: u64 = sandbox.consumer.replicas().iter().map(|replica| replica.counts().accepted).sum();
    assert_eq!(counted, 3_000);
}

#[tokio::test]
async fn a_secret_changed_by_hand_is_an_outage_that_the_totals_show() {
    let dir = tempfile::tempdir().expect("a directory");
    let sandbox = Sandbox::start(options(dir.path())).await.expect("a sandbox");
    sandbox.handle().change_settings(|s| (s.retries, s.backoff_ms) = (1, 1));
    sandbox.handle().deliver(&sandbox.webhook_id, 2);
    settled(&sandbox).await;
    let label = sandbox.handle().change_by_hand(&sandbox.webhook_id, secret("pasted"));
    sandbox.handle().deliver(&sandbox.webhook_id, 2);
    settled(&sandbox).await;
    let totals = sandbox.handle().totals();
    assert_eq!((totals.accepted, totals.rejected), (2, 2));
    assert_eq!(totals.of(&sandbox.webhook_id, label.expect("a label")).attempts_failed, 4);
}

#[tokio::test]
async fn a_replica_that_is_down_loses_its_turns_and_one_that_joins_takes_some() {
    let dir = tempfile::tempdir().expect("a directory");
    let sandbox = Sandbox::start(options(dir.path())).await.expect("a sandbox");
    sandbox.handle().change_settings(|s| s.retries = 0);
    sandbox.consumer.replica("web-1").expect("a replica").behave(Behaviour::Down);
    sandbox.handle().deliver(&sandbox.webhook_id, 10);
    settled(&sandbox).await;
    assert_eq!(sandbox.handle().totals().rejected, 5);
    assert!(sandbox.consumer.stop_replica("web-1").await);
    let joined = sandbox.consumer.start_replica().await.expect("a replica");
    sandbox.handle().deliver(&sandbox.webhook_id, 10);
    settled(&sandbox).await;
    assert_eq!((sandbox.handle().totals().rejected, joined.name(), joined.counts().accepted), (5, "web-3", 5));
}

#[tokio::test]
async fn the_directory_holds_a_configuration_and_private_credentials() {
    let dir = tempfile::tempdir().expect("a directory");
    let sandbox = Sandbox::start(options(dir.path())).await.expect("a sandbox");
    let path = sandbox.write_config(sandbox.dir()).expect("a configuration");
    let text = std::fs::read_to_string(&path).expect("the file");
    let config: toml::Table = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(config["dialnexa"]["base_url"].as_str(), Some(sandbox.base_url().as_str()));
    let webhook = &config["webhook"][0];
    assert_eq!(webhook["keystore"]["path"].as_str(), sandbox.keystore.to_str());
    assert_eq!(webhook["preflight"]["probe"].as_array().map(Vec::len), Some(2));
    let key_file = config["store"]["sealing_key"]["file"].as_str().expect("a file");
    assert!(SealingKey::parse(&std::fs::read_to_string(key_file).expect("the key")).is_ok());
    let initial = std::fs::read_to_string(sandbox.secret_file()).expect("the secret");
    assert_eq!(sandbox.handle().label_of(&sandbox.webhook_id, &secret(&initial)), Some(0));
    assert!(!text.contains(&initial) && !text.contains(sandbox.api_key.expose()));
    for entry in std::fs::read_dir(sandbox.dir()).expect("the directory").flatten() {
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is open to others", entry.path());
    }
}

#[tokio::test]
async fn a_sandbox_that_is_started_again_goes_on_with_the_keystores_current_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Sandbox::start(options(dir.path())).await.expect("a sandbox");
    let (keystore, api_key) = (first.keystore.clone(), first.api_key.clone());
    first.shutdown().await;
    let rotated = r#"{"version":1,"generation":9,"keys":[
        {"kid":"k_b","state":"current","secret":"rotated"},{"kid":"k_a","state":"previous","secret":"before"}]}"#;
    std::fs::write(&keystore, rotated).expect("written");
    let second = Sandbox::start(options(dir.path())).await.expect("a sandbox");
    assert!(second.api_key.same_as(&api_key));
    assert_eq!(second.handle().label_of(&second.webhook_id, &secret("rotated")), Some(0));
    second.handle().deliver(&second.webhook_id, 2);
    settled(&second).await;
    assert_eq!(second.handle().totals().accepted, 2);
    second.shutdown().await;
    std::fs::write(&keystore, "{}").expect("written");
    let refused = Sandbox::start(options(dir.path())).await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains("secrets.json") && text.contains("another directory")));
}
