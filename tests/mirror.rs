//! The tap behind a real nginx, configured as docs/consumers.md says: the consumer must not notice it, whatever it does.

#[path = "gateway/consumer.rs"]
#[allow(dead_code)] // The tests of the gateway ask more of it.
mod consumer;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use consumer::Consumer;
use hookturn::{
    config::Door,
    evidence::{Desk, Facts, GatewayCounts, Limits, ProxyAnswers, Reason, Sighting, bind_answers, serve},
    secret::{Keyring, Kid, Secret, Standing, signature},
};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

/// As the documented `client_max_body_size` and `listen.max_body`.
const CAP: usize = 10 << 20;

#[derive(Default)]
struct Book(Mutex<Vec<Sighting>>);

impl Desk for Book {
    fn keyring(&self, _: &str) -> Option<Arc<Keyring>> {
        Some(Arc::new(Keyring::new(vec![(Kid::parse("now").expect("kid"), secret(), Standing::Accepted)])))
    }
    fn report_token(&self, _: &str) -> Option<Secret> {
        None
    }
    fn tap_token(&self, _: &str) -> Option<Secret> {
        None
    }
    fn sighted(&self, sighting: Sighting) -> bool {
        self.0.lock().expect("lock").push(sighting);
        true
    }
    fn unverified(&self, _: &str, _: Door, _: Reason, _: &Facts) {}
    fn gateway_counts(&self, _: &str, _: GatewayCounts) {}
}

struct Stage {
    consumer: Consumer,
    book: Arc<Book>,
    nginx: SocketAddr,
    _child: Child,
    _dir: tempfile::TempDir,
}

/// What stands at the address of the tap.
enum Tap {
    Ours,
    /// Takes connections and says nothing.
    Silent,
    Gone,
}

impl Stage {
    async fn with(tap: Tap) -> Option<Stage> {
        let nginx = nginx_program()?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let (consumer, book) = (Consumer::start().await, Arc::new(Book::default()));
        let answers = dir.path().join("answers.sock");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let tap_address = listener.local_addr().expect("address");
        match tap {
            Tap::Ours => {
                let told = ProxyAnswers::new(["billing".to_owned()]);
                for socket in bind_answers([&answers]).expect("a socket") {
                    tokio::spawn(told.clone().listen(socket, book.clone(), CancellationToken::new()));
                }
                tokio::spawn(serve(listener, Limits::new(CAP), book.clone(), told, CancellationToken::new()));
            }
            Tap::Silent => {
                tokio::spawn(async move {
                    let mut held = Vec::new();
                    while let Ok(accepted) = listener.accept().await {
                        held.push(accepted);
                    }
                });
            }
            Tap::Gone => drop(listener),
        }
        let address = free_port().await;
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, configuration(dir.path(), address, consumer.address, tap_address, &answers)).expect("write");
        let mut command = Command::new(nginx);
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).stdin(Stdio::null()).kill_on_drop(true);
        let child = command.stderr(std::fs::File::create(dir.path().join("stderr")).expect("a file")).spawn().expect("nginx");
        for _ in 0..600 {
            if TcpStream::connect(address).await.is_ok() {
                return Some(Stage { consumer, book, nginx: address, _child: child, _dir: dir });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nginx does not listen: {}", std::fs::read_to_string(dir.path().join("stderr")).unwrap_or_default());
    }

    async fn post(&self, client: &reqwest::Client, body: Vec<u8>) -> u16 {
        let signature = signature::sign(&secret(), &body);
        let request = client.post(format!("http://{}/hook", self.nginx)).header("x-nexa-signature", signature);
        request.body(body).send().await.expect("an answer").status().as_u16()
    }

    async fn sighted(&self, count: usize) -> Vec<Sighting> {
        for _ in 0..1200 {
            if self.book.0.lock().expect("lock").len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.book.0.lock().expect("lock").clone()
    }
}

/// The two blocks of docs/consumers.md, with the addresses of this test and the `access_log` line taken up.
fn configuration(dir: &Path, listen: SocketAddr, consumer: SocketAddr, tap: SocketAddr, answers: &Path) -> String {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/consumers.md")).expect("the page");
    let blocks: Vec<&str> = docs.split("```nginx\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [server, http] = blocks[..] else { panic!("{} nginx blocks in docs/consumers.md", blocks.len()) };
    let put = |text: &str, from: &str, to: String| {
        assert!(text.contains(from), "{from} is not in docs/consumers.md");
        text.replace(from, &to)
    };
    let server = put(server, "http://127.0.0.1:9000", format!("http://{consumer}"));
    let server = put(&server, "http://127.0.0.1:8780", format!("http://{tap}"));
    let server = put(&server, "# access_log", "access_log".to_owned());
    let server = put(&server, "/var/lib/hookturn/answers.sock", answers.display().to_string());
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {}/{name};\n", dir.display()))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 256; }}\n\
         http {{\n  access_log off;\n{temp}{http}\n  server {{\n    listen {listen};\n{server}  }}\n}}\n",
        dir.display()
    )
}

fn secret() -> Secret {
    Secret::parse("whsec_now").expect("secret")
}

fn nginx_program() -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&places).collect();
    places.push("/usr/sbin".into());
    let found = places.into_iter().map(|place| place.join("nginx")).find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: nginx is not on this machine (apt-get install nginx-light)");
    }
    found
}

async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a free port")
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("client")
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_are_seen_as_the_consumer_saw_them_with_its_answer() {
    let Some(stage) = Stage::with(Tap::Ours).await else { return };
    // One client: its connection is kept.
    let client = client();
    let lengths = [0, 1, 1024, 1 << 20, CAP];
    for (at, length) in lengths.into_iter().enumerate() {
        stage.consumer.answers(if at % 2 == 0 { 204 } else { 401 }, Duration::ZERO);
        let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        assert_eq!(stage.post(&client, body.clone()).await, if at % 2 == 0 { 204 } else { 401 }, "{length}");
        assert!(stage.consumer.got().last().is_some_and(|got| got.body == body), "{length}");
    }
    let mut seen: Vec<_> = stage.sighted(lengths.len()).await.iter().map(|s| (s.facts.length, s.accepted, s.status)).collect();
    seen.sort_unstable();
    let (yes, no) = ((Some(true), Some(204)), (Some(false), Some(401)));
    let expected: Vec<_> =
        lengths.into_iter().enumerate().map(|(at, length)| (length, if at % 2 == 0 { yes } else { no })).collect();
    assert_eq!(seen.into_iter().map(|(length, accepted, status)| (length, (accepted, status))).collect::<Vec<_>>(), expected);
    // Just over the cap: nginx refuses it, and nobody sees it.
    assert_eq!(stage.post(&client, vec![b'x'; CAP + 1]).await, 413);
    assert_eq!((stage.consumer.got().len(), stage.book.0.lock().expect("lock").len()), (lengths.len(), lengths.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_that_is_silent_or_gone_costs_no_answer() {
    for tap in [Tap::Silent, Tap::Gone] {
        let Some(stage) = Stage::with(tap).await else { return };
        let client = client();
        for _ in 0..3 {
            assert_eq!(stage.post(&client, b"{}".to_vec()).await, 204);
        }
        assert_eq!(stage.consumer.got().len(), 3);
    }
}
