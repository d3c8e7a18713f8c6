//! One connection for one PATCH.
//!
//! The connection is opened before the intent is committed and never re-dialled: a sender that was paused in between finds it
//! closed by the server, so the time by which a request can be late is bounded by the peer's clock, not by ours.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use zeroize::Zeroizing;

use super::{Line, PatchReport, ProviderError, client::BODY_CAP, wire};
use crate::{rotation::PatchAnswer, secret::Secret};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
    pub path: String,
    pub tls: Option<Arc<ClientConfig>>,
    pub authorization: HeaderValue,
}

/// An open connection on which nothing was sent yet.
pub(super) struct OpenLine {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
    address: Address,
    api_key: Secret,
}

impl Drop for OpenLine {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl OpenLine {
    pub async fn open(address: &Address, api_key: &Secret) -> Result<OpenLine, ProviderError> {
        let unreachable = |text: String| ProviderError::Unreachable(wire::plain(&text, &[]));
        let opening = async {
            let place = format!("{}:{}", address.host, address.port);
            let stream = TcpStream::connect((address.host.as_str(), address.port))
                .await
                .map_err(|error| unreachable(format!("no connection to {place}: {error}")))?;
            // A request of a few hundred bytes gains nothing from being collected.
            let _ = stream.set_nodelay(true);
            let Some(config) = &address.tls else { return Self::shake(TokioIo::new(stream), address, api_key).await };
            let name = ServerName::try_from(address.host.clone())
                .map_err(|error| unreachable(format!("{place} is not a name for TLS: {error}")))?;
            let stream = TlsConnector::from(config.clone())
                .connect(name, stream)
                .await
                .map_err(|error| unreachable(format!("TLS with {place} failed: {error}")))?;
            Self::shake(TokioIo::new(stream), address, api_key).await
        };
        match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(unreachable(format!("no connection to {} within {} s", address.host, CONNECT_TIMEOUT.as_secs()))),
        }
    }

    async fn shake<S>(stream: S, address: &Address, api_key: &Secret) -> Result<OpenLine, ProviderError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http1::handshake(stream).await.map_err(|error| ProviderError::Unreachable(error.to_string()))?;
        let driver = tokio::spawn(async move {
            // How it ends is seen by the request, or does not matter.
            let _ = connection.await;
        });
        Ok(OpenLine { sender, driver, address: address.clone(), api_key: api_key.clone() })
    }

    fn request(&self, id: &str, secret: &Secret) -> Result<Request<Full<Bytes>>, http::Error> {
        let quoted = Zeroizing::new(Value::String(secret.expose().to_owned()).to_string());
        let body = format!("{{\"secret\":{}}}", *quoted);
        let host = if self.address.host.contains(':') { format!("[{}]", self.address.host) } else { self.address.host.clone() };
        Request::builder()
            .method(Method::PATCH)
            .uri(format!("{}/user-webhooks/{id}", self.address.path))
            .header(header::HOST, format!("{host}:{}", self.address.port))
            .header(header::AUTHORIZATION, self.address.authorization.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, concat!("hookturn/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
    }

    async fn exchange(&mut self, id: &str, secret: &Secret) -> PatchReport {
        let ambiguous = |text: String| PatchReport { answer: PatchAnswer::Ambiguous { wait: 0 }, text };
        let request = match self.request(id, secret) {
            Ok(request) => request,
            Err(error) => return ambiguous(format!("the request cannot be built: {error}")),
        };
        let began = Instant::now();
        // A failure before the first byte was written is called ambiguous too: no harm is done by one more repetition.
        let response = match self.sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return ambiguous(wire::plain(&format!("no answer: {error}"), &[secret, &self.api_key])),
        };
        let status = response.status().as_u16();
        let wait = wire::wait(response.headers(), SystemTime::now());
        let request_id =
            response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(|id| wire::plain(id, &[secret]));
        let bytes = match Limited::new(response.into_body(), BODY_CAP).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                return ambiguous(wire::plain(&format!("{status}, then half an answer: {error}"), &[secret, &self.api_key]));
            }
        };
        let body: Option<Value> = serde_json::from_slice(&bytes).ok();
        let said = body.as_ref().map(|body| wire::message(body, &[secret, &self.api_key])).unwrap_or_default();
        let mut text = format!("{status} in {} ms", began.elapsed().as_millis());
        if let Some(request_id) = request_id {
            text = format!("{text}, request {request_id}");
        }
        if !said.is_empty() {
            text = format!("{text}: {said}");
        }
        PatchReport { answer: wire::classify(id, status, body.as_ref(), wait), text }
    }
}

#[async_trait]
impl Line for OpenLine {
    async fn patch_secret(mut self: Box<Self>, id: &str, secret: &Secret, deadline: Duration) -> PatchReport {
        match timeout(deadline, self.exchange(id, secret)).await {
            Ok(report) => report,
            Err(_) => PatchReport {
                answer: PatchAnswer::Ambiguous { wait: 0 },
                text: format!("no whole answer within {} ms", deadline.as_millis()),
            },
        }
    }
}
