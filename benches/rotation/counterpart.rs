//! What a rotation talks to: DialNexa, and one replica of the consumer. As little as will do, in a thread of its own, so that
//! its work is the same for the floor and for the daemon.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use hookturn::secret::{Secret, signature::sign};
use sha2::{Digest, Sha256};

pub const WEBHOOK: &str = "whk_bench000001";

pub struct Counterpart {
    pub address: SocketAddr,
    pub keystore: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    keystore: PathBuf,
    /// Where a delivery is reported right after a PATCH; `None`: nowhere.
    report_to: Mutex<Option<SocketAddr>>,
    exchanges: Mutex<HashMap<&'static str, u64>>,
    rotations: AtomicU64,
}

impl Counterpart {
    pub fn start(dir: &Path) -> Counterpart {
        let keystore = dir.join("keys").join("secrets.json");
        fs::create_dir(dir.join("keys")).expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            keystore: keystore.clone(),
            report_to: Mutex::default(),
            exchanges: Mutex::default(),
            rotations: AtomicU64::new(0),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serving.answer(stream);
            }
        });
        Counterpart { address, keystore, shared }
    }

    /// From now on every PATCH is followed by a delivery that the consumer accepts and reports.
    pub fn report_to(&self, doors: Option<SocketAddr>) {
        *self.shared.report_to.lock().expect("lock") = doors;
    }

    /// The exchanges of one rotation of the daemon.
    pub fn exchanges(&self) -> String {
        let rotations = self.shared.rotations.load(Ordering::Relaxed).max(1);
        let exchanges = self.shared.exchanges.lock().expect("lock");
        let mut words: Vec<String> = exchanges.iter().map(|(name, count)| format!("{} {name}", count / rotations)).collect();
        words.sort();
        words.join(", ")
    }
}

impl Shared {
    fn answer(self: &Arc<Shared>, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (head, body) = request(&mut stream)?;
        let method = head.split(' ').next().unwrap_or_default().to_owned();
        let (status, content) = match method.as_str() {
            "POST" => (self.verify(&head, &body), String::new()),
            _ => (
                "200 OK",
                format!(r#"{{"id":"{WEBHOOK}","url":"http://127.0.0.1/hook","events":["call.completed"],"is_active":true}}"#),
            ),
        };
        let length = content.len();
        // In one piece, as servers do.
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{content}"
        );
        stream.write_all(answer.as_bytes())?;
        drop(stream);
        let report_to = *self.report_to.lock().expect("lock");
        if let Some(doors) = report_to {
            let name = match method.as_str() {
                "POST" => "probes",
                "PATCH" => "PATCH",
                _ => "GET",
            };
            *self.exchanges.lock().expect("lock").entry(name).or_default() += 1;
            if method == "PATCH" {
                self.rotations.fetch_add(1, Ordering::Relaxed);
                let shared = self.clone();
                thread::spawn(move || shared.deliver(doors));
            }
        }
        Ok(())
    }

    /// As a good consumer: the file is read for each delivery, the raw bytes are verified before they are parsed.
    fn verify(&self, head: &str, body: &[u8]) -> &'static str {
        let signature = head.lines().find_map(|line| line.strip_prefix("x-nexa-signature: ")).unwrap_or_default();
        let known = keys(&self.keystore).iter().any(|(_, _, secret)| sign(secret, body) == signature);
        if known { "400 Bad Request" } else { "401 Unauthorized" }
    }

    /// A delivery under the newest key was accepted.
    fn deliver(&self, doors: SocketAddr) {
        let keys = keys(&self.keystore);
        let Some((kid, ..)) = keys.iter().find(|(_, state, _)| state == "pending") else { return };
        let body = format!("delivery {}", self.rotations.load(Ordering::Relaxed));
        let _ = super::floor::exchange(doors, &report(kid, body.as_bytes()));
    }
}

/// The consumer's own word that a body verified under `kid`.
pub fn report(kid: &str, body: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(body));
    let said = format!(r#"{{"kid":"{kid}","body_sha256":"{digest}","status":200,"replica":"web-1"}}"#);
    super::floor::request("POST", "/report/billing", &said)
}

fn keys(keystore: &Path) -> Vec<(String, String, Secret)> {
    let Ok(bytes) = fs::read(keystore) else { return Vec::new() };
    let content: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |key: &serde_json::Value, name: &str| key[name].as_str().unwrap_or_default().to_owned();
    let keys = content["keys"].as_array().cloned().unwrap_or_default();
    let key = |key: &serde_json::Value| Some((text(key, "kid"), text(key, "state"), Secret::parse(&text(key, "secret")).ok()?));
    keys.iter().filter_map(key).collect()
}

/// The head, in lower case but for the first line, and the body.
fn request(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(2048);
    let mut chunk = [0u8; 2048];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        match stream.read(&mut chunk)? {
            0 => break,
            n => body.extend_from_slice(&chunk[..n]),
        }
    }
    Ok((head, body))
}
