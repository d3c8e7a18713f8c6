//! Replicas that come and go, and replicas that are asked what they have loaded.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;

/// Replaces the webhook's `preflight`.
fn preflight(world: &World, keys: &str) {
    let text = fs::read_to_string(&world.config).expect("the configuration");
    let lines = text.lines().map(|line| match line.starts_with("preflight = ") {
        true => format!("preflight = {{ wait = \"300ms\", {keys} }}"),
        false => line.to_owned(),
    });
    fs::write(&world.config, lines.collect::<Vec<_>>().join("\n")).expect("written");
}

fn list(world: &World) -> std::path::PathBuf {
    world.dir.path().join("replicas")
}

/// As a deployment tool does it: replaced as a whole.
fn listed(world: &World, addresses: &[String]) {
    let beside = world.dir.path().join("replicas.new");
    fs::write(&beside, addresses.join("\n")).expect("written");
    fs::rename(beside, list(world)).expect("in place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_is_included_and_a_vanished_one_waited_for_until_it_is_dismissed() {
    let world = World::start(|options| options.repeat_max = Duration::from_secs(600)).await;
    let addresses = || world.sandbox.consumer.replicas().iter().map(|replica| replica.addr().to_string()).collect::<Vec<_>>();
    let first = addresses();
    listed(&world, &first);
    preflight(&world, &format!("probe = [\"http://{{replica}}/hook\"], replicas = \"file:{}\"", list(&world).display()));
    world.adopt().await;
    let mut daemon = world.daemon();
    world.until("both are known", LIMIT, |status| status["replicas"].as_array().is_some_and(|all| all.len() == 2)).await;
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    quiet_after_the_patch(&world).await;

    world.sandbox.consumer.start_replica().await.expect("a third one");
    listed(&world, &addresses());
    let accepts = |status: &serde_json::Value| {
        status["replicas"]
            .as_array()
            .is_some_and(|all| all.len() == 3 && all.iter().all(|replica| replica["verdict"] == "accepts"))
    };
    world.until("the new one is asked", LIMIT, accepts).await;

    assert!(world.sandbox.consumer.stop_replica("web-2").await);
    listed(&world, &addresses());
    let vanished = |status: &serde_json::Value| {
        status["replicas"].as_array().is_some_and(|all| all.iter().filter(|replica| replica["vanished"] == true).count() == 1)
    };
    world.until("it is missed", LIMIT, vanished).await;
    daemon.kill().await.expect("killed");
    let _daemon = world.daemon();
    world.until("it is missed after a restart too", LIMIT, vanished).await;
    traffic(&world, true);
    let told = explained(&world, "replica-vanished").await;
    assert!(told.contains(&first[1]), "{told}");
    let wrong = world.run(&["dismiss", "billing", &first[0]]).await;
    assert_eq!(wrong.status.code(), Some(1), "{}", said(&wrong));
    assert!(said(&wrong).contains("still listed"), "{}", said(&wrong));
    assert_eq!(world.status().await["completed"], 0);
    let done = world.run(&["dismiss", "billing"]).await;
    assert!(done.status.success() && said(&done).contains(&first[1]), "{}", said(&done));
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    let history = said(&world.run(&["history", "billing"]).await);
    assert!(history.contains("was dismissed") && history.contains("operator uid="), "{history}");
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_says_what_it_has_loaded_is_named_while_it_lags() {
    let world = World::start(|_| {}).await;
    let (keystore, stuck) = (world.sandbox.keystore.clone(), Arc::new(AtomicBool::new(true)));
    let frozen = fs::read(&keystore).expect("the keystore");
    let lags = stuck.clone();
    let answer = async move |headers: axum::http::HeaderMap| {
        if headers.get("authorization").is_none_or(|token| token != "Bearer read-back-token") {
            return (axum::http::StatusCode::UNAUTHORIZED, String::new());
        }
        let content = if lags.load(Ordering::Relaxed) { frozen.clone() } else { fs::read(&keystore).expect("the keystore") };
        let content: serde_json::Value = serde_json::from_slice(&content).expect("JSON");
        let keys = content["keys"].as_array().expect("keys").iter();
        let keys: Vec<_> = keys.map(|key| serde_json::json!({ "kid": key["kid"], "state": key["state"] })).collect();
        (axum::http::StatusCode::OK, serde_json::json!({ "generation": content["generation"], "keys": keys }).to_string())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/rotation/keys", listener.local_addr().expect("an address"));
    let router = axum::Router::new().route("/rotation/keys", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = world.dir.path().join("token");
    fs::write(&token, "read-back-token\n").expect("written");
    preflight(&world, &format!("read_back = [\"{url}\"], read_back_token = {{ file = \"{}\" }}", token.display()));
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    let told = explained(&world, "replica-lags").await;
    assert!(told.contains(&url) && told.contains("has loaded generation 1, not 2 yet"), "{told}");
    assert!(world.sandbox.handle().patches().is_empty());
    stuck.store(false, Ordering::Relaxed);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    world.nothing_lost().await;
}

/// What a consumer says that it has loaded of this keystore file.
fn loaded(keystore: &std::path::Path) -> String {
    let content: serde_json::Value = serde_json::from_slice(&fs::read(keystore).expect("the keystore")).expect("JSON");
    let keys = content["keys"].as_array().expect("keys").iter();
    let keys: Vec<_> = keys.map(|key| serde_json::json!({ "kid": key["kid"], "state": key["state"] })).collect();
    serde_json::json!({ "generation": content["generation"], "keys": keys }).to_string()
}

fn replicas_are(count: usize) -> impl Fn(&serde_json::Value) -> bool {
    move |status| status["replicas"].as_array().is_some_and(|all| all.len() == count)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_that_matches_is_a_replica_and_the_one_that_lags_is_named() {
    let world = World::start(|_| {}).await;
    let srv = world.dir.path().join("srv");
    let says = |name: &str, text: &str| {
        fs::create_dir_all(srv.join(name)).expect("a directory");
        let beside = srv.join(name).join(".loaded.json");
        fs::write(&beside, text).expect("written");
        fs::rename(beside, srv.join(name).join("loaded.json")).expect("in place");
    };
    let now = || loaded(&world.sandbox.keystore);
    says("web-1", &now());
    says("web-2", &now());
    preflight(&world, &format!("read_back = [\"file:{}/*/loaded.json\"]", srv.display()));
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("both are known", LIMIT, replicas_are(2)).await;
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    says("web-1", &now());
    let told = explained(&world, "replica-lags").await;
    assert!(told.contains("web-2/loaded.json (has loaded generation 1, not 2 yet)"), "{told}");
    says("web-3", &now());
    world.until("a third one is found", LIMIT, replicas_are(3)).await;
    assert!(world.sandbox.handle().patches().is_empty());
    let (keep, keystore) = (srv.clone(), world.sandbox.keystore.clone());
    let following = tokio::spawn(async move {
        loop {
            for name in ["web-1", "web-2", "web-3"] {
                let beside = keep.join(name).join(".loaded.json");
                fs::write(&beside, loaded(&keystore)).expect("written");
                fs::rename(beside, keep.join(name).join("loaded.json")).expect("in place");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    following.abort();
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_name_is_a_replica() {
    let world = World::start(|_| {}).await;
    let mut addresses: Vec<_> =
        tokio::net::lookup_host("localhost:0").await.expect("localhost").map(|found| found.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let first = tokio::net::TcpListener::bind((addresses[0], 0)).await.expect("a port");
    let port = first.local_addr().expect("an address").port();
    let mut listeners = vec![first];
    for address in &addresses[1..] {
        listeners.push(tokio::net::TcpListener::bind((*address, port)).await.expect("the same port"));
    }
    for listener in listeners {
        let keystore = world.sandbox.keystore.clone();
        let answer = async move || loaded(&keystore);
        let router = axum::Router::new().route("/keys", axum::routing::get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    preflight(&world, &format!("read_back = [\"http://{{replica}}/keys\"], replicas = \"dns:localhost:{port}\""));
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("all of them are known", LIMIT, replicas_are(addresses.len())).await;
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    rotated(&world).await;
    let status = world.status().await;
    for address in addresses {
        let name = format!("http://{}/keys", std::net::SocketAddr::from((address, port)));
        assert!(status["replicas"].as_array().is_some_and(|all| all.iter().any(|replica| replica["name"] == name)), "{status:#}");
    }
    world.nothing_lost().await;
}
