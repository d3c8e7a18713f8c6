use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::{RequestBuilder, redirect};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    BadBaseUrl, BadId, Endpoint, Line, Provider, ProviderError, TlsError, Update, Webhook, line, tls,
    wire::{self, Body, Reply},
};
use crate::secret::{Secret, redact};

/// The most that is read of one answer, in bytes.
pub(super) const MAX_BODY: usize = 1 << 20;

/// The page size that is asked for, the largest that is documented. DialNexa may give less.
const PAGE: u32 = 100;
const MAX_PAGES: u32 = 100;

/// DialNexa over HTTPS.
///
/// Follows no redirect, uses no proxy and repeats nothing by itself: who repeats a request has to know that it was sent.
pub struct Client {
    api: Arc<Api>,
    http: reqwest::Client,
}

/// How to reach DialNexa.
pub struct Settings {
    /// `https://...`, or `http://...` to a loopback address.
    pub base_url: String,
    /// What follows `Bearer`; opaque (`key_id:secret` and `dnx_live_...` are both documented).
    pub api_key: Secret,
    /// A PEM bundle to trust instead of the system's. Not looked at for plain http.
    pub ca_file: Option<PathBuf>,
    /// Bounds one request other than the PATCH of a secret, and the opening of a connection for that.
    pub timeout: Duration,
}

/// What every request needs, and nothing else may see.
pub(super) struct Api {
    pub(super) endpoint: Endpoint,
    pub(super) key: Secret,
    pub(super) bearer: HeaderValue,
    pub(super) timeout: Duration,
    /// `None`: plain http.
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why a client cannot be made. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    BaseUrl(#[from] BadBaseUrl),
    #[error("the DialNexa API key holds characters that no HTTP header can carry: is it the right file?")]
    ApiKey,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the HTTP client cannot be built: {0}")]
    Http(String),
}

impl Client {
    /// Reads the CA bundle, once; contacts nobody.
    pub fn new(settings: Settings) -> Result<Client, ClientError> {
        let endpoint = Endpoint::parse(&settings.base_url)?;
        let tls = if endpoint.secure { tls::trusting(settings.ca_file.as_deref())? } else { tls::trusting_nobody()? };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(endpoint.secure)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            // A connection that was kept may be dead, and hyper would then send the request a second time.
            .pool_max_idle_per_host(0)
            .connect_timeout(settings.timeout)
            .timeout(settings.timeout)
            .user_agent(USER_AGENT);
        if let Some(addresses) = endpoint.pinned() {
            builder = builder.resolve_to_addrs(&endpoint.host, &addresses);
        }
        let http = builder.build().map_err(|e| ClientError::Http(chain(&e)))?;
        let bearer = bearer(&settings.api_key)?;
        let tls = endpoint.secure.then(|| Arc::new(tls));
        let api = Api { endpoint, key: settings.api_key, bearer, timeout: settings.timeout, tls };
        Ok(Client { api: Arc::new(api), http })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, self.api.endpoint.url(path))
            .header(header::AUTHORIZATION, self.api.bearer.clone())
            .header(header::ACCEPT, "application/json")
    }

    /// Sends a request about the webhook `id`, or about all of them.
    async fn ask(&self, request: RequestBuilder, id: Option<&str>) -> Result<Value, ProviderError> {
        let known = [&self.api.key];
        let broken = |e: reqwest::Error| self.api.unreachable(&chain(&e.without_url()));
        let mut response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        log(status.as_u16(), &headers, &known);
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                return Err(ProviderError::Nonsense(format!("{}: the body is longer than {MAX_BODY} bytes", status.as_u16())));
            }
        }
        wire::accept(&Reply { status, headers, body: Body::Whole(body.freeze()) }, id, &known)
    }

    fn path(&self, id: &str) -> Result<String, ProviderError> {
        self.api.endpoint.path(id).map_err(|e: BadId| ProviderError::NotFound {
            id: wire::for_humans(id, &[]),
            message: format!("it was not asked for: {e}"),
        })
    }

    /// One page, or `None` behind the last one.
    async fn page(&self, number: u32) -> Result<Option<Vec<Webhook>>, ProviderError> {
        let path = self.api.endpoint.list_path();
        let request = self.request(Method::GET, &path).query(&[("page", number), ("limit", PAGE)]);
        match self.ask(request, None).await {
            Ok(value) => wire::page(&value)
                .map(|page| Some(page.into_iter().map(|found| self.api.shown(found)).collect()))
                .ok_or_else(|| ProviderError::Nonsense("no list of webhooks in it".to_owned())),
            Err(ProviderError::Refused { status: 404, .. }) if number > 1 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Provider for Client {
    async fn get(&self, id: &str) -> Result<Webhook, ProviderError> {
        let path = self.path(id)?;
        let value = self.ask(self.request(Method::GET, &path), Some(id)).await?;
        let found = named(wire::webhook(&value), id)?.map(|found| self.api.shown(found));
        found.ok_or_else(|| ProviderError::Nonsense("no webhook in it".to_owned()))
    }

    /// Asks for page after page until one brings nothing new. Whatever is said of totals is not relied on: an empty or a
    /// repeated page ends it, so a server that knows no pages at all is asked twice.
    async fn list(&self) -> Result<Vec<Webhook>, ProviderError> {
        let mut all: Vec<Webhook> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        for number in 1..=MAX_PAGES {
            let Some(page) = self.page(number).await? else { return Ok(all) };
            let before = all.len();
            all.extend(page.into_iter().filter(|webhook| seen.insert(webhook.id.clone())));
            if all.len() == before {
                return Ok(all);
            }
        }
        Err(ProviderError::Nonsense(format!("page {MAX_PAGES} of the webhooks still brings new ones")))
    }

    /// Where DialNexa answers without showing the webhook, it is read back. An update without fields is only a look.
    async fn update(&self, id: &str, update: &Update) -> Result<Webhook, ProviderError> {
        let body = fields(update);
        if body.is_empty() {
            return self.get(id).await;
        }
        let path = self.path(id)?;
        let value = self.ask(self.request(Method::PATCH, &path).json(&body), Some(id)).await?;
        match named(wire::webhook(&value), id)?.filter(|webhook| webhook.url.is_some()) {
            Some(webhook) => Ok(self.api.shown(webhook)),
            None => self.get(id).await,
        }
    }

    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError> {
        line::open(self.api.clone()).await
    }
}

impl Api {
    pub(super) fn unreachable(&self, why: &str) -> ProviderError {
        ProviderError::Unreachable(wire::for_humans(&format!("{}: {why}", self.endpoint.authority()), &[&self.key]))
    }

    /// What DialNexa says of a webhook, as it may be stored and shown: whoever answers may repeat the key.
    fn shown(&self, found: Webhook) -> Webhook {
        let without_key = |text: String| redact(&text, &[&self.key]);
        Webhook {
            url: found.url.map(without_key),
            events: found.events.into_iter().map(without_key).collect(),
            created_at: found.created_at.map(without_key),
            ..found
        }
    }
}

pub(super) const USER_AGENT: &str = concat!("hookturn/", env!("CARGO_PKG_VERSION"));

/// What an operator needs when DialNexa's support asks. Never a body.
pub(super) fn log(status: u16, headers: &HeaderMap, known: &[&Secret]) {
    let shown = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(|text| wire::for_humans(text, known));
    tracing::debug!(
        status,
        request_id = wire::request_id(headers).map(|id| wire::for_humans(&id, known)),
        limit = shown("x-ratelimit-limit"),
        remaining = shown("x-ratelimit-remaining"),
        reset = shown("x-ratelimit-reset"),
        retry_after = shown("retry-after"),
        "DialNexa answered"
    );
}

/// An error and what caused it, as one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn bearer(key: &Secret) -> Result<HeaderValue, ClientError> {
    let text = Zeroizing::new(format!("Bearer {}", key.expose()));
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).map_err(|_| ClientError::ApiKey)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The webhook, if it is the one that was asked for. An answer that does not repeat the id is taken for it.
fn named(found: Option<Webhook>, id: &str) -> Result<Option<Webhook>, ProviderError> {
    match found {
        Some(found) if !found.id.is_empty() && found.id != id => {
            Err(ProviderError::Nonsense(wire::for_humans(&format!("asked for {id}, it names {}", found.id), &[])))
        }
        other => Ok(other.map(|found| Webhook { id: id.to_owned(), ..found })),
    }
}

/// Only what is to be changed: a field that is there replaces the whole value.
fn fields(update: &Update) -> serde_json::Map<String, Value> {
    let url = update.url.as_ref().map(|url| ("url", json!(url)));
    let events = update.events.as_ref().map(|events| ("events", json!(events)));
    let is_active = update.is_active.map(|on| ("is_active", json!(on)));
    [url, events, is_active].into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
}
