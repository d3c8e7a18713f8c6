//! A provider with one webhook, an endpoint that records what it gets, and a client.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, http::Uri};
use hookturn::{
    sandbox::provider::{Provider, ProviderOptions, Running},
    secret::Secret,
};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

pub const HOOK: &str = "whk_a";
pub const API_KEY: &str = "key_test:secret";
pub const WEAK_KEY: &str = "key_weak:secret";

pub fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub fn secret(text: &str) -> Secret {
    Secret::parse(text).expect("a secret")
}

pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

/// Waits until something is so; a test that never gets there fails.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// A provider whose webhook [`HOOK`] (first secret `first`) posts to a recording endpoint.
pub struct Stage {
    pub running: Running,
    pub endpoint: Endpoint,
    pub client: Client,
}

impl Stage {
    pub async fn new() -> Stage {
        let endpoint = Endpoint::start().await;
        let mut options = ProviderOptions::new(secret(API_KEY));
        options.weak_api_key = Some(secret(WEAK_KEY));
        options.settings.backoff_ms = 5;
        let running = Provider::start(loopback(), options).await.expect("a provider");
        running.handle.add_webhook(HOOK, &endpoint.url(), &["call.completed"], secret("first"));
        Stage { running, endpoint, client: client() }
    }

    pub fn provider(&self) -> &Provider {
        &self.running.handle
    }

    /// A request with the good key to `path`, below `/v1`.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Result<Response> {
        self.ask_as(API_KEY, method, path, body).await
    }

    pub async fn ask_as(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> reqwest::Result<Response> {
        let request = self.client.request(method, format!("{}{path}", self.running.base_url())).bearer_auth(key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await
    }

    pub async fn patch(&self, body: Value) -> reqwest::Result<Response> {
        self.ask(Method::PATCH, &format!("/user-webhooks/{HOOK}"), Some(body)).await
    }

    pub async fn patch_secret(&self, text: &str) -> reqwest::Result<Response> {
        self.patch(json!({"secret": text})).await
    }

    /// Status and JSON of an answer that came.
    pub async fn json(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        read(self.ask(method, path, body).await.expect("an answer")).await
    }

    pub async fn control(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.client.request(method, format!("http://{}/control{path}", self.running.addr));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        read(request.send().await.expect("an answer")).await
    }

    /// Lets `count` events happen and waits for the end of their deliveries.
    pub async fn deliver(&self, count: u64) {
        assert_eq!(self.provider().deliver(HOOK, count), count);
        assert!(self.provider().settled(Duration::from_secs(60)).await, "deliveries are still on their way");
    }
}

pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An endpoint that records requests and answers from a script; 200 when the script is over.
#[derive(Clone)]
pub struct Endpoint {
    pub addr: SocketAddr,
    shared: Arc<Recorded>,
}

#[derive(Default)]
struct Recorded {
    requests: Mutex<Vec<Request>>,
    script: Mutex<VecDeque<u16>>,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Clone)]
pub struct Request {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Endpoint {
    pub async fn start() -> Endpoint {
        let shared = Arc::new(Recorded::default());
        let router = Router::new().fallback(record).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind(loopback()).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Endpoint { addr, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    pub fn answers(&self, statuses: &[u16]) {
        self.shared.script.lock().expect("the script").extend(statuses);
    }

    /// What happens while the next request awaits its answer.
    pub fn meanwhile(&self, work: impl FnOnce() + Send + 'static) {
        *self.shared.meanwhile.lock().expect("the work") = Some(Box::new(work));
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("the requests").clone()
    }

    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request")
    }
}

async fn record(State(shared): State<Arc<Recorded>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    shared.requests.lock().expect("the requests").push(Request { path: uri.path().to_owned(), headers, body });
    if let Some(work) = shared.meanwhile.lock().expect("the work").take() {
        work();
    }
    let status = shared.script.lock().expect("the script").pop_front();
    status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK)
}
