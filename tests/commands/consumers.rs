//! The consumers of examples/ and the lines of docs/leaked.md, run as they are written.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::process::Child;

use super::{LONG, World, ends, said};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {program} is not on this machine");
    }
    found
}

/// An example server in the place of the sandbox's own consumer.
async fn serve(world: &World, program: &str, file: &str) -> Child {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let log = fs::File::create(world.dir.path().join("server.log")).expect("a log");
    let token = fs::read_to_string(world.sandbox.dir().join("report-token")).expect("a token");
    let child = tokio::process::Command::new(program)
        .arg(source(file))
        .env("KEYSTORE", &world.sandbox.keystore)
        .env("REPORT_URL", format!("http://{}/report/billing", world.sandbox.deliveries))
        .env("REPORT_TOKEN", token.trim())
        .env("REPLICA", "billing-1")
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("a server");
    let began = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(began.elapsed() < LONG, "{}", fs::read_to_string(world.dir.path().join("server.log")).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let url = format!("http://127.0.0.1:{port}/hook");
    world.sandbox.handle().set_url(&world.sandbox.webhook_id, &url);
    let config = fs::read_to_string(&world.config).expect("a configuration");
    let probes = config.lines().find(|line| line.starts_with("preflight")).expect("preflight");
    let config = config.replace(probes, &format!("preflight = {{ wait = \"100ms\", probe = [\"{url}\"] }}"));
    fs::write(&world.config, config).expect("written");
    child
}

async fn an_example_rotates(program: &str, file: &str) {
    if !there(program) {
        return;
    }
    let world = World::start(|options| {
        options.status_every = None;
        options.per_second = 0.0;
    })
    .await;
    let _server = serve(&world, program, file).await;
    world.adopt().await;
    let _daemon = world.daemon();
    world.ready().await;
    // Now there is somebody to deliver to.
    world.sandbox.handle().traffic(&world.sandbox.webhook_id, 10.0);
    world.until("confirmed by a report", LONG, |status| status["confirmed"] == true).await;
    ends(&world.run(&["check", "--probe", "billing"]).await, 0, &["\"unparseable\" works at every replica"]);
    world.rotates(&[]).await;
    let status = world.status().await;
    assert_eq!(status["last_delivery_door"], "report", "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_consumer_rotates_without_a_loss() {
    an_example_rotates("node", "examples/consumers/node/server.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_consumer_rotates_without_a_loss() {
    an_example_rotates("python3", "examples/consumers/python/server.py").await;
}

/// The shell lines for who has no hookturn yet, with this test in the place of the person who deploys and waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_for_a_leaked_secret_do_what_they_say() {
    if !(there("bash") && there("curl") && Command::new("openssl").arg("version").output().is_ok()) {
        return println!("skipped: the lines of docs/leaked.md need bash, curl and openssl");
    }
    let world = World::start(|_| {}).await;
    let page = fs::read_to_string(source("docs/leaked.md")).expect("the page");
    let (_, rest) = page.split_once("## hookturn is not installed yet").expect("the section");
    let script = rest.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("its lines");
    let api_key = world.sandbox.dir().join("api-key").display().to_string();
    let replica = world.sandbox.consumer.replicas()[0].url();
    let deploy = format!("touch written; while [ ! -e deployed ]; do sleep 0.1; done; cp new-secret kept\nURL={replica}\n");
    let mut changed = String::from("set -eu\n");
    for line in script.lines() {
        match line {
            line if line.starts_with("ID=") => changed += &format!("ID={}\n", world.sandbox.webhook_id),
            line if line.starts_with("API=") => changed += &format!("API={}\n", world.sandbox.base_url()),
            line if line.starts_with("read -rs") => changed += &format!("DIALNEXA_API_KEY=$(cat {api_key})\n"),
            line if line.starts_with("URL=") => changed += &deploy,
            line => changed += &format!("{line}\n"),
        }
    }
    let here = world.dir.path().join("leaked");
    fs::create_dir(&here).expect("a directory");
    let running = tokio::process::Command::new("bash").args(["-c", &changed]).current_dir(&here).output();
    let running = tokio::spawn(running);
    let began = Instant::now();
    while !here.join("written").exists() {
        assert!(began.elapsed() < LONG, "no secret was made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let new = fs::read_to_string(here.join("new-secret")).expect("a secret");
    assert!(new.starts_with("whsec_") && new.len() == 49, "{}", new.len());
    let keystore = fs::read_to_string(&world.sandbox.keystore).expect("a keystore");
    let mut keystore: serde_json::Value = serde_json::from_str(&keystore).expect("JSON");
    keystore["generation"] = 2.into();
    let key = serde_json::json!({"kid": "k_new", "state": "pending", "secret": new, "secret_encoding": "utf8"});
    keystore["keys"].as_array_mut().expect("keys").push(key);
    fs::write(&world.sandbox.keystore, keystore.to_string()).expect("written");
    world.sandbox.consumer.reload().await;
    fs::write(here.join("deployed"), "").expect("written");
    let output = running.await.expect("bash").expect("it runs");
    ends(&output, 0, &["400\n401\n"]);
    let secret = hookturn::secret::Secret::parse(&new).expect("a secret");
    let handle = world.sandbox.handle();
    assert_eq!(
        handle.label_of(&world.sandbox.webhook_id, &secret),
        handle.stored(&world.sandbox.webhook_id),
        "{}",
        said(&output)
    );
    assert!(!here.join("patch.json").exists() && !here.join("curl.conf").exists(), "the key was left behind");
    assert!(!said(&output).contains(&new), "{}", said(&output));
    world.nothing_lost().await;
}
