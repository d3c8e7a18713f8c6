//! The REST client: reqwest for what may be repeated, [`super::line`] for the one request that changes the secret.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, header::AUTHORIZATION};
use reqwest::{Method, redirect};
use serde_json::{Value, json};
use tokio_rustls::rustls;

use super::{
    Line, Provider, ProviderError, Update, Webhook,
    line::{Address, OpenLine},
    wire,
};
use crate::secret::Secret;

/// No answer of DialNexa that is read here comes near this.
pub(super) const BODY_CAP: usize = 1 << 20;
const PAGES_AT_MOST: u32 = 100;
const PAGE_SIZE: u32 = 100;

pub struct Settings {
    /// Without a trailing slash, such as `https://api.dialnexa.com/v1`.
    pub base_url: String,
    pub api_key: Secret,
    /// A PEM bundle to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// For every request but the PATCH of a secret, which has its own deadline.
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("base_url {0:?} is not a URL")]
    NotAUrl(String),
    #[error("base_url {0:?}: plain http is accepted for a loopback address only")]
    NotHttps(String),
    #[error("the API key holds characters that no header can carry")]
    BadApiKey,
    #[error("no trusted certificate authority: {0}; install ca-certificates or set dialnexa.ca_file")]
    NoRoots(String),
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
}

/// The id goes into a path: anything else would be a request of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook id is 1 to 128 letters, digits, '.', '_' or '-'")]
pub struct BadId;

pub fn check_id(id: &str) -> Result<(), BadId> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let dots = id.bytes().all(|b| b == b'.');
    if id.is_empty() || id.len() > 128 || dots || !id.bytes().all(allowed) { Err(BadId) } else { Ok(()) }
}

pub struct Client {
    base_url: String,
    address: Address,
    api_key: Secret,
    http: reqwest::Client,
}

impl Client {
    /// # Errors
    /// [`ClientError`]: the address is neither https nor loopback, or no certificate authority can be read.
    pub fn new(settings: Settings) -> Result<Client, ClientError> {
        let base_url = settings.base_url.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base_url).map_err(|_| ClientError::NotAUrl(base_url.clone()))?;
        let host = url.host_str().ok_or_else(|| ClientError::NotAUrl(base_url.clone()))?.trim_matches(['[', ']']).to_owned();
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = match url.scheme() {
            "https" => Some(Arc::new(tls_config(settings.ca_file.as_deref())?)),
            "http" if loopback => None,
            _ => return Err(ClientError::NotHttps(base_url)),
        };
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", settings.api_key.expose())).map_err(|_| ClientError::BadApiKey)?;
        authorization.set_sensitive(true);
        let setup = |error: reqwest::Error| ClientError::Setup(error.to_string());
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(settings.timeout)
            .pool_idle_timeout(Duration::from_secs(20))
            .user_agent(USER_AGENT)
            .default_headers([(AUTHORIZATION, authorization.clone())].into_iter().collect());
        // Without https no certificate is needed, nor a machine that has any.
        let config = match &tls {
            Some(config) => (**config).clone(),
            None => plain_config()?,
        };
        builder = builder.tls_backend_preconfigured(config);
        let http = builder.build().map_err(setup)?;
        let port = url.port_or_known_default().unwrap_or(443);
        let path = url.path().trim_end_matches('/').to_owned();
        let address = Address { host, port, path, tls, authorization };
        Ok(Client { base_url, address, api_key: settings.api_key, http })
    }

    async fn call(&self, method: Method, id: &str, path: &str, body: Option<&Value>) -> Result<Value, ProviderError> {
        let mut request = self.http.request(method, format!("{}/user-webhooks{path}", self.base_url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| ProviderError::Unreachable(reason(&error)))?;
        let status = response.status().as_u16();
        let wait = wire::wait(response.headers(), std::time::SystemTime::now());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| ProviderError::Unreachable(reason(&error)))? {
            if bytes.len() + chunk.len() > BODY_CAP {
                return Err(ProviderError::Nonsense(format!("an answer of more than {BODY_CAP} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body: Option<Value> = serde_json::from_slice(&bytes).ok();
        let inner = body.as_ref().and_then(|body| body.get("statusCode")).and_then(Value::as_u64).filter(|inner| *inner >= 300);
        let status = inner.and_then(|inner| u16::try_from(inner).ok()).filter(|_| status < 300).unwrap_or(status);
        if !(200..300).contains(&status) {
            return Err(wire::refusal(id, status, &body.unwrap_or(Value::Null), wait, &[&self.api_key]));
        }
        body.ok_or_else(|| ProviderError::Nonsense(format!("{status} with a body that is not JSON")))
    }
}

const USER_AGENT: &str = concat!("hookturn/", env!("CARGO_PKG_VERSION"));

#[async_trait]
impl Provider for Client {
    async fn get(&self, id: &str) -> Result<Webhook, ProviderError> {
        check(id)?;
        let body = self.call(Method::GET, id, &format!("/{id}"), None).await?;
        same(id, wire::webhook(&body))
    }

    async fn list(&self) -> Result<Vec<Webhook>, ProviderError> {
        let mut all: Vec<Webhook> = Vec::new();
        for page in 1..=PAGES_AT_MOST {
            let body = self.call(Method::GET, "", &format!("?page={page}&limit={PAGE_SIZE}"), None).await?;
            let items = wire::page(&body).ok_or_else(|| ProviderError::Nonsense("a list in no known shape".to_owned()))?;
            let before = all.len();
            for item in items {
                if !all.iter().any(|known| known.id == item.id) {
                    all.push(item);
                }
            }
            // The documents disagree on limits and totals; a page without anything new is the end under all of them.
            if all.len() == before {
                break;
            }
        }
        Ok(all)
    }

    async fn update(&self, id: &str, update: &Update) -> Result<Webhook, ProviderError> {
        check(id)?;
        let mut body = serde_json::Map::new();
        if let Some(url) = &update.url {
            body.insert("url".to_owned(), json!(url));
        }
        if let Some(events) = &update.events {
            body.insert("events".to_owned(), json!(events));
        }
        if let Some(active) = update.is_active {
            body.insert("is_active".to_owned(), json!(active));
        }
        let answer = self.call(Method::PATCH, id, &format!("/{id}"), Some(&Value::Object(body))).await?;
        same(id, wire::webhook(&answer))
    }

    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError> {
        Ok(Box::new(OpenLine::open(&self.address, &self.api_key).await?))
    }
}

fn check(id: &str) -> Result<(), ProviderError> {
    check_id(id).map_err(|error| ProviderError::Refused { status: 0, message: error.to_string() })
}

fn same(id: &str, webhook: Option<Webhook>) -> Result<Webhook, ProviderError> {
    match webhook {
        Some(webhook) if webhook.id == id => Ok(webhook),
        Some(_) => Err(ProviderError::Nonsense("it is about another webhook".to_owned())),
        None => Err(ProviderError::Nonsense("there is no webhook in it".to_owned())),
    }
}

/// The whole chain of reasons, without the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { "the request failed".to_owned() };
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    wire::plain(&text, &[])
}

fn tls_config(ca_file: Option<&std::path::Path>) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = rustls::RootCertStore::empty();
    let (certificates, trouble) = match ca_file {
        Some(path) => {
            let loaded = rustls_native_certs::load_certs_from_paths(Some(path), None);
            (loaded.certs, loaded.errors)
        }
        None => {
            let loaded = rustls_native_certs::load_native_certs();
            (loaded.certs, loaded.errors)
        }
    };
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        let place = ca_file.map_or("the system's store".to_owned(), |path| path.display().to_string());
        let trouble = trouble.first().map_or("it is empty".to_owned(), ToString::to_string);
        return Err(ClientError::NoRoots(format!("{place}: {trouble}")));
    }
    config_with(roots)
}

fn plain_config() -> Result<rustls::ClientConfig, ClientError> {
    config_with(rustls::RootCertStore::empty())
}

fn config_with(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Setup(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
