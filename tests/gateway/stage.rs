//! A gateway in this process, with a keystore file and a consumer.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use hookturn::{
    config::Config,
    evidence::Limits,
    gateway::{self, Poke, Prepared},
    secret::{Secret, signature},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::consumer::Consumer;

pub const BODY: &[u8] = br#"{"event":"call.completed","n":1}"#;

pub struct Stage {
    pub consumer: Consumer,
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
}

/// What a gateway of a test differs in.
#[derive(Default)]
pub struct Cast {
    /// Keys of the webhook's gateway table.
    pub gateway: &'static str,
    pub limit: Option<fn(&mut Limits)>,
    /// Where the daemon's doors are; nobody listens there otherwise.
    pub daemon: Option<SocketAddr>,
    /// There is no keystore file.
    pub no_keys: bool,
}

pub async fn stage() -> Stage {
    Stage::with(Cast::default()).await
}

impl Stage {
    pub async fn with(cast: Cast) -> Stage {
        let (consumer, dir) = (Consumer::start().await, tempfile::tempdir().expect("a directory"));
        if !cast.no_keys {
            write_keys(&dir.path().join("secrets.json"), 7, &[("now", "current"), ("new", "pending")]);
        }
        std::fs::write(dir.path().join("inner"), "inner-secret\n").expect("write");
        let deliveries = cast.daemon.map_or_else(|| "off".to_owned(), |daemon| daemon.to_string());
        let upstream = format!("http://{}/in?", consumer.address);
        let text = format!(
            "[listen]\ndeliveries = \"{deliveries}\"\n[[webhook]]\nname = \"billing\"\nid = \"whk_1\"\n\
             keystore = {{ kind = \"file\", path = \"secrets.json\" }}\npreflight = {{ status = true }}\n\
             gateway = {{ upstream = \"{}\", {} }}\n",
            upstream.trim_end_matches('?'),
            cast.gateway
        );
        let config = Config::parse(&dir.path().join("hookturn.toml"), &text).unwrap_or_else(|error| panic!("{error:?}"));
        let mut limits = gateway::limits(&config);
        limits.linger = Duration::from_millis(100);
        if let Some(limit) = cast.limit {
            limit(&mut limits);
        }
        let prepared = Prepared::new(&config, limits, &Poke::default()).await.expect("a gateway");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(prepared.serve(listener, false, shutdown.clone()));
        Stage { consumer, address, dir, shutdown, served }
    }

    pub fn keystore(&self) -> PathBuf {
        self.dir.path().join("secrets.json")
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        client.request(method.parse().expect("method"), format!("http://{}{path}", self.address))
    }

    pub fn post(&self, by: &str, body: &[u8]) -> reqwest::RequestBuilder {
        self.request("POST", "/hook/billing").header("x-nexa-signature", sign(by, body)).body(body.to_vec())
    }

    pub async fn status(&self, by: &str, body: &[u8]) -> u16 {
        self.post(by, body).send().await.expect("an answer").status().as_u16()
    }

    /// Writes bytes as they are and returns all that comes back.
    pub async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(request).await.expect("write");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The status file of the first gateway, once it is as it should be.
    pub async fn told(&self, reached: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let path = self.dir.path().join("secrets.json.status/gateway-1.json");
        for _ in 0..600 {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if let Ok(status) = serde_json::from_str::<serde_json::Value>(&text)
                && reached(&status)
            {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not reached: {}", std::fs::read_to_string(&path).unwrap_or_default());
    }
}

pub fn secret(name: &str) -> Secret {
    Secret::parse(&format!("whsec_{name}")).expect("secret")
}

pub fn sign(name: &str, body: &[u8]) -> String {
    signature::sign(&secret(name), body)
}

/// Replaces the file as the daemon does.
pub fn write_keys(path: &std::path::Path, generation: u64, keys: &[(&str, &str)]) {
    let keys: Vec<_> = keys
        .iter()
        .map(|(kid, state)| serde_json::json!({"kid": kid, "state": state, "secret": format!("whsec_{kid}")}))
        .collect();
    let text = serde_json::json!({"version": 1, "generation": generation, "webhook": {"id": "whk_1"}, "keys": keys}).to_string();
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("write");
    std::fs::rename(next, path).expect("rename");
}
