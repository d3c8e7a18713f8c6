//! The real program: whole rotations through it, and restarts under load.
//!
//! `HOOKTURN_GATEWAY=long` makes the restarts last for five minutes, with a consumer that takes 30 s for each answer.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use hookturn::secret::{Secret, signature};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    consumer::Consumer,
    stage::{BODY, sign, write_keys},
    world::{World, said},
};

fn receive(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    command.arg("-c").arg(config).args(["--log", "info", "receive"]).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rotated_behind_the_gateway_and_the_consumer_never_changes() {
    let world = World::start(|options| {
        options.reports = false;
        options.status_every = None;
        options.wait = Duration::from_millis(1500);
    })
    .await;
    let consumer = Consumer::start().await;
    std::fs::write(world.dir.path().join("inner"), "inner-secret").expect("write");
    let gateway = free_port().await;
    rewrite(&world.config, |text| {
        let text = text.replace("[listen]\n", &format!("[listen]\ngateway = \"{gateway}\"\n"));
        let text = text.replace("verify = { ", "verify = { sources = [\"gateway\"], ");
        let probes = text.find("probe = [").expect("probes");
        let end = probes + text[probes..].find(']').expect("their end") + 1;
        let table = format!("gateway = {{ upstream = \"http://{}/in\", resign = {{ file = \"inner\" }} }}\n", consumer.address);
        format!("{}status = true{}{table}", &text[..probes], &text[end..])
    });
    world.adopt().await;
    let log = std::fs::File::create(world.dir.path().join("gateway.log")).expect("a log");
    let mut receiving = receive(&world.config).stderr(log).spawn().expect("a gateway");
    let handle = world.sandbox.handle();
    handle.set_url(&world.sandbox.webhook_id, &format!("http://{gateway}/hook/billing"));
    let daemon = world.daemon();
    world.until("confirmed through the gateway", Duration::from_secs(60), |status| status["confirmed"] == true).await;
    // The daemon dies in mid-rotation, and deliveries go on.
    let begun = world.run(&["rotate-now", "billing", "--until", "pushed", "--timeout", "60s"]).await;
    assert_eq!(begun.status.code(), Some(0), "{}", said(&begun));
    drop(daemon);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _daemon = world.daemon();
    let done = loop {
        let done = world.run(&["rotate-now", "billing", "--until", "retired", "--timeout", "120s"]).await;
        // The daemon has the store, and is not reachable yet.
        if done.status.code() != Some(75) {
            break done;
        }
    };
    assert_eq!(done.status.code(), Some(0), "{}\nlog:\n{}", said(&done), world.log());
    let status = world.status().await;
    let one = status.as_array().and_then(|all| all.first()).cloned().unwrap_or(status);
    assert_eq!((one["last_delivery_door"].as_str(), one["deliveries"]["lost"].as_u64()), (Some("gateway"), Some(0)), "{one:#}");
    world.nothing_lost().await;
    let inner = Secret::parse("inner-secret").expect("secret");
    for got in consumer.got() {
        let signed = signature::HEADERS.iter().find_map(|name| got.headers.get(*name)).expect("a signature");
        assert_eq!(signed, &signature::sign(&inner, &got.body));
    }
    receiving.kill().await.expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_checks_pass_the_gateway_and_prove_nothing() {
    let world = World::start(|options| {
        (options.reports, options.status_every, options.per_second) = (false, None, 0.0);
    })
    .await;
    let consumer = Consumer::start().await;
    let gateway = free_port().await;
    rewrite(&world.config, |text| {
        let text = text.replace("[listen]\n", &format!("[listen]\ngateway = \"{gateway}\"\n"));
        let rule = "verify = { sources = [\"gateway\"], ignore = [{ header = \"x-synthetic\" }], ";
        let text = text.replace("verify = { ", rule);
        format!("{text}gateway = {{ upstream = \"http://{}/in\" }}\n", consumer.address)
    });
    world.adopt().await;
    let _daemon = world.daemon();
    let _receiving = receive(&world.config).stderr(Stdio::null()).spawn().expect("a gateway");
    let secret = std::fs::read_to_string(world.sandbox.secret_file()).expect("a secret");
    let secret = Secret::parse(&secret).expect("a secret");
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let deliver = async |body: &'static str, header: &'static str| {
        let (began, signature) = (Instant::now(), signature::sign(&secret, body.as_bytes()));
        loop {
            let request = client.post(format!("http://{gateway}/hook/billing")).header("x-nexa-signature", &signature);
            match request.header(header, "1").body(body).send().await {
                Ok(answer) => return answer.status().as_u16(),
                // It has only just been started.
                Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(deliver(r#"{"check":1}"#, "x-synthetic").await, 204);
    assert_eq!(deliver(r#"{"event":"call.completed"}"#, "x-other").await, 204);
    let status = world.until("confirmed", Duration::from_secs(60), |status| status["confirmed"] == true).await;
    assert_eq!((consumer.got().len(), &status["deliveries"]["current"]), (2, &1.into()), "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_one_after_the_other_are_never_seen_by_a_sender() {
    let long = std::env::var("HOOKTURN_GATEWAY").is_ok_and(|mode| mode == "long");
    let (seconds, stall, pause) = if long { (300, 30, 20) } else { (9, 2, 1) };
    let dir = tempfile::tempdir().expect("a directory");
    let consumer = Consumer::start().await;
    consumer.answers(204, Duration::from_secs(stall));
    write_keys(&dir.path().join("secrets.json"), 1, &[("now", "current"), ("new", "pending")]);
    let config = dir.path().join("hookturn.toml");
    let text = format!(
        "[listen]\ndeliveries = \"off\"\n[[webhook]]\nname = \"billing\"\nid = \"whk_1\"\n\
         keystore = {{ kind = \"file\", path = \"secrets.json\" }}\npreflight = {{ status = true }}\n\
         gateway = {{ upstream = \"http://{}/\" }}\n",
        consumer.address
    );
    std::fs::write(&config, text).expect("write");
    // As systemd: the socket is ours, and every gateway accepts from it.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let start = || activated(&config, &socket);
    let mut gateways = [start(), start()];
    let senders = tokio::spawn(send(address, Duration::from_secs(seconds)));
    let (began, mut restarts) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let next = &mut gateways[restarts % 2];
        terminate(next).await;
        *next = start();
        restarts += 1;
    }
    let answers = senders.await.expect("senders");
    println!("{restarts} restarts, {} deliveries", answers.len());
    assert!(restarts >= 2);
    let strange: Vec<_> = answers.iter().filter(|(_, answer)| answer.as_deref() != Ok("204 yes")).collect();
    let some: Vec<_> = strange.iter().step_by(strange.len() / 20 + 1).collect();
    assert!(strange.is_empty() && answers.len() > 100, "{} of {}: {some:?}", strange.len(), answers.len());
}

/// When it was sent, and what it was answered.
type Told = (Duration, Result<String, String>);

/// 50 deliveries per second, half of them on connections that are kept.
async fn send(address: SocketAddr, length: Duration) -> Vec<Told> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kept = reqwest::Client::builder().no_proxy().build().expect("client");
    let fresh = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("client");
    let (mut senders, mut tick) = (JoinSet::new(), tokio::time::interval(Duration::from_millis(20)));
    let began = Instant::now();
    for (at, _) in (0..length.as_secs() * 50).enumerate() {
        tick.tick().await;
        let client = if at % 2 == 0 { kept.clone() } else { fresh.clone() };
        let sent = began.elapsed();
        senders.spawn(async move { (sent, deliver(client, address, at).await) });
    }
    senders.join_all().await
}

async fn deliver(client: reqwest::Client, address: SocketAddr, at: usize) -> Result<String, String> {
    let signature = sign(if at.is_multiple_of(3) { "new" } else { "now" }, BODY);
    let request = client.post(format!("http://{address}/hook/billing")).header("x-nexa-signature", signature);
    let answer = request.body(BODY).send().await.map_err(|error| format!("{error:?}"))?;
    let consumer = answer.headers().get("x-consumer").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok(format!("{} {}", answer.status().as_u16(), consumer.unwrap_or_default()))
}

/// A gateway that is handed the socket as systemd does it: as descriptor 3, with its own process id in the environment.
fn activated(config: &Path, socket: &std::net::TcpListener) -> Child {
    let descriptor = OwnedFd::from(socket.try_clone().expect("a copy"));
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_hookturn"), "-c"]).arg(config).arg("receive");
    command.stdin(Stdio::from(descriptor)).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("a gateway")
}

async fn terminate(gateway: &mut Child) {
    let pid = gateway.id().expect("it runs");
    let done = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.expect("kill");
    assert!(done.success());
    let ended = gateway.wait().await.expect("its end");
    assert_eq!(ended.code(), Some(0), "it answered everybody first");
}

async fn free_port() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a free port")
}

fn rewrite(path: &Path, change: impl FnOnce(&str) -> String) {
    let text = std::fs::read_to_string(path).expect("a file");
    std::fs::write(path, change(&text)).expect("write");
}
