//! Hundreds of webhooks in one daemon: a hanging keystore, a silent replica or a hold of some keeps none of the others.
//!
//! HOOKTURN_MANY says how many; 300 when it does not.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use futures_util::{StreamExt, stream};
use hookturn::{
    admin::remote::Remote,
    daemon::{AdoptedSecret, Office, Request, Status},
    sandbox::provider::{Provider, ProviderOptions, Running},
    secret::{SealingKey, Secret, signature::sign},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LONG: Duration = Duration::from_secs(300);
/// So many of each kind of trouble.
const TROUBLED: usize = 6;
/// Requests to the daemon at a time; file descriptors are not what is tested.
const AT_ONCE: usize = 40;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Good,
    /// Its keystore is a program that never ends.
    Hangs,
    /// One of its replicas is not there.
    Dead,
    /// DialNexa forgets it in mid-rotation.
    Held,
}

fn kind(number: usize) -> Kind {
    match number {
        n if n < TROUBLED => Kind::Hangs,
        n if n < 2 * TROUBLED => Kind::Dead,
        n if n < 3 * TROUBLED => Kind::Held,
        _ => Kind::Good,
    }
}

fn name(number: usize) -> String {
    format!("w{number}")
}

fn id(number: usize) -> String {
    format!("whk_many{number:08}")
}

/// Everything but the daemon.
struct Town {
    dir: tempfile::TempDir,
    provider: Running,
    consumer: SocketAddr,
    count: usize,
}

/// The consumer of all of them: it reads the keystore of the one that is addressed, verifies, and reports what it accepted.
#[derive(Clone)]
struct Consumer {
    keys: PathBuf,
    doors: Arc<OnceLock<String>>,
    client: reqwest::Client,
}

async fn receive(
    State(consumer): State<Consumer>,
    UrlPath(name): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let keystore = fs::read(consumer.keys.join(format!("{name}.json"))).unwrap_or_default();
    let keystore: Value = serde_json::from_slice(&keystore).unwrap_or_default();
    let given = headers.get("x-dialnexa-signature").or(headers.get("x-nexa-signature")).and_then(|value| value.to_str().ok());
    let signed = |key: &&Value| {
        let secret = key["secret"].as_str().and_then(|text| Secret::parse(text).ok());
        secret.is_some_and(|secret| Some(sign(&secret, &body).as_str()) == given)
    };
    let keys = keystore["keys"].as_array().cloned().unwrap_or_default();
    let Some(key) = keys.iter().find(signed) else { return StatusCode::UNAUTHORIZED };
    if serde_json::from_slice::<Value>(&body).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    let said = json!({"kid": key["kid"], "body_sha256": hex::encode(Sha256::digest(&body)), "status": 200, "replica": "one"});
    if let Some(doors) = consumer.doors.get() {
        let report = consumer.client.post(format!("{doors}/report/{name}")).json(&said);
        tokio::spawn(async move { drop(report.send().await) });
    }
    StatusCode::OK
}

impl Town {
    async fn build(count: usize) -> Town {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).expect("a directory");
        fs::write(dir.path().join("api-key"), "key_many:secret").expect("written");
        fs::write(dir.path().join("sealing-key"), &*SealingKey::generate().expect("a key").encode()).expect("written");
        let api_key = Secret::parse("key_many:secret").expect("a key");
        let provider =
            Provider::start(SocketAddr::from(([127, 0, 0, 1], 0)), ProviderOptions::new(api_key)).await.expect("a provider");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let consumer = listener.local_addr().expect("an address");
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let doors = Arc::new(OnceLock::new());
        doors.set(format!("http://{free}")).expect("once");
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        let routes = Router::new().route("/hook/{name}", post(receive)).with_state(Consumer { keys, doors, client });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        for number in 0..count {
            let url = format!("http://{consumer}/hook/{}", name(number));
            provider.handle.add_webhook(&id(number), &url, &["call.completed"], first_secret(number));
        }
        let town = Town { dir, provider, consumer, count };
        fs::write(town.config(), town.text(free)).expect("written");
        town
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("hookturn.toml")
    }

    fn text(&self, deliveries: SocketAddr) -> String {
        let mut text = format!(
            "[dialnexa]\nbase_url = \"{}\"\napi_key = {{ file = \"api-key\" }}\n[store]\nurl = \"sqlite:hookturn.db\"\n\
             sealing_key = {{ file = \"sealing-key\" }}\n[listen]\ndeliveries = \"{deliveries}\"\nadmin = \"unix:admin.sock\"\n\
             status = \"off\"\n[defaults]\ndrain = \"1s\"\nquarantine = \"5s\"\n\
             patch = {{ timeout = \"2s\", repeat_min = \"1s\", repeat_max = \"5s\" }}\npreflight = {{ wait = \"100ms\" }}\n",
            self.provider.base_url()
        );
        for number in 0..self.count {
            let (name, id) = (name(number), id(number));
            let keystore = match kind(number) {
                Kind::Hangs => "{ kind = \"exec\", command = [\"sleep\", \"600\"], timeout = \"60s\" }".to_owned(),
                _ => format!("{{ kind = \"file\", path = \"keys/{name}.json\" }}"),
            };
            // Nobody listens at port 9.
            let replica = match kind(number) {
                Kind::Dead => "http://127.0.0.1:9/hook".to_owned(),
                _ => format!("http://{}/hook/{name}", self.consumer),
            };
            text += &format!(
                "[[webhook]]\nname = \"{name}\"\nid = \"{id}\"\nkeystore = {keystore}\npreflight = {{ probe = [\"{replica}\"] }}\n"
            );
        }
        text
    }
}

fn first_secret(number: usize) -> Secret {
    Secret::parse(&format!("whsec_first_{number}")).expect("a secret")
}

/// `hookturn run`, killed where the test fails.
struct Daemon(Child);

impl Daemon {
    async fn start(config: &Path) -> (Daemon, Remote) {
        let log = fs::File::create(config.with_extension("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
        command.arg("-c").arg(config).args(["--log", "warn", "run"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = Daemon(command.spawn().expect("a daemon"));
        let (began, socket) = (Instant::now(), config.with_file_name("admin.sock"));
        loop {
            if let Ok(Some(remote)) = Remote::connect(&socket).await {
                return (daemon, remote);
            }
            assert!(began.elapsed() < LONG, "the daemon never listened");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same of many webhooks; the answers by number.
async fn ask(remote: &Remote, of: impl Iterator<Item = usize>, request: impl Fn(usize) -> Request) {
    let asked = stream::iter(of.map(|number| (number, request(number))));
    let asked = asked.map(|(number, request)| async move { (number, remote.perform(&name(number), request, "").await) });
    let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    for (number, answer) in answers {
        answer.unwrap_or_else(|failure| panic!("{}: {failure}", name(number)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_troubles_of_some_keep_none_of_the_others() {
    let count = std::env::var("HOOKTURN_MANY").ok().and_then(|text| text.parse().ok()).unwrap_or(300usize);
    assert!(count > 3 * TROUBLED);
    let town = Town::build(count).await;
    let (_daemon, remote) = Daemon::start(&town.config()).await;
    ask(&remote, 0..count, |number| Request::Adopt {
        secret: match kind(number) {
            Kind::Hangs => AdoptedSecret::Unknown,
            _ => AdoptedSecret::Given(first_secret(number).expose().to_owned()),
        },
    })
    .await;
    ask(&remote, 0..count, |_| Request::Rotate { compromised: false, unconfirmed: true }).await;
    let (began, handle) = (Instant::now(), &town.provider.handle);
    let mut slowest_status = Duration::ZERO;
    let statuses = loop {
        let asked = Instant::now();
        let statuses: BTreeMap<String, Status> =
            remote.status().await.expect("a status").into_iter().map(|status| (status.name.clone(), status)).collect();
        slowest_status = slowest_status.max(asked.elapsed());
        let of = |number: usize| &statuses[&name(number)];
        for number in (0..count).filter(|number| of(*number).phase == "patch" && of(*number).patched) {
            match kind(number) {
                Kind::Held => drop(handle.delete(&id(number))),
                _ => drop(handle.deliver(&id(number), 1)),
            }
        }
        let settled = (0..count).all(|number| match kind(number) {
            Kind::Good => of(number).completed == 1 && of(number).phase == "idle",
            Kind::Held => of(number).phase == "hold",
            Kind::Hangs | Kind::Dead => true,
        });
        if settled {
            break statuses;
        }
        let open: Vec<_> =
            statuses.values().filter(|status| status.phase != "idle").map(|s| (&s.name, &s.phase, &s.detail)).collect();
        assert!(began.elapsed() < LONG, "{} of {count} have not ended: {open:#?}", open.len());
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    println!("{count} webhooks: the good ones were rotated in {:?}; status took {slowest_status:?} at most", began.elapsed());
    for number in 0..3 * TROUBLED {
        let status = &statuses[&name(number)];
        let (phase, told) = (status.phase.as_str(), serde_json::to_string(status).expect("JSON"));
        match kind(number) {
            Kind::Hangs => assert_eq!(phase, "push", "{told}"),
            Kind::Dead => {
                assert!(phase == "push" && told.contains("replica-unreachable") && told.contains("127.0.0.1:9"), "{told}")
            }
            Kind::Held => assert_eq!(status.hold.as_deref(), Some("webhook-gone"), "{told}"),
            Kind::Good => unreachable!("not one of the troubled"),
        }
        assert_eq!(status.accepted.len(), if kind(number) == Kind::Hangs { 1 } else { 2 }, "{told}");
    }
    assert!(handle.settled(LONG).await);
    let totals = handle.totals();
    assert_eq!((totals.rejected, totals.lost), (0, 0), "{totals:?}");
    assert!(totals.accepted >= (count - 3 * TROUBLED) as u64);
}
