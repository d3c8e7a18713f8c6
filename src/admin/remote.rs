//! A daemon in another process, reached through its control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::daemon::{Failure, Office, Reply, Request, Status, Story};

/// The longest that the daemon is waited for: a keystore program may take its time.
const PATIENCE: Duration = Duration::from_secs(90);

/// More than the longest story.
const ANSWER_CAP: usize = 64 << 20;

/// An [`Office`] behind a control socket. Every call is a connection of its own, so a daemon that was restarted in between is
/// found again.
#[derive(Debug, Clone)]
pub struct Remote {
    path: PathBuf,
}

impl Remote {
    /// `None` where nobody listens.
    ///
    /// # Errors
    /// Somebody may listen, but this user may not ask: permission denied.
    pub async fn connect(path: &Path) -> io::Result<Option<Remote>> {
        match UnixStream::connect(path).await {
            Ok(_) => Ok(Some(Remote { path: path.to_owned() })),
            Err(error) if nobody_listens(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, target: &str, body: Bytes) -> Result<T, Failure> {
        let exchange = self.exchange(method, target, body);
        let (status, bytes) = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer.map_err(|reason| self.unreachable(&reason))?,
            Err(_) => return Err(self.unreachable(&format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        let strange = |reason: String| Failure { exit: 69, text: format!("the daemon at {}: {reason}", self.path.display()) };
        match status {
            StatusCode::OK => serde_json::from_slice(&bytes)
                .map_err(|error| strange(format!("its answer is not understood ({error}); is it another version of hookturn?"))),
            StatusCode::CONFLICT => Err(serde_json::from_slice(&bytes)
                .unwrap_or_else(|error| strange(format!("it refuses, and its reason is not understood ({error})")))),
            other => Err(strange(format!("it answers {other}; is it another version of hookturn?"))),
        }
    }

    async fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let text = |error: hyper::Error| error.to_string();
        let stream = UnixStream::connect(&self.path).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let driver = tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "hookturn")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_CAP).collect().await.map_err(|error| error.to_string())?;
        driver.abort();
        Ok((status, bytes.to_bytes()))
    }

    fn unreachable(&self, reason: &str) -> Failure {
        Failure { exit: 69, text: format!("the daemon at {} does not answer: {reason}", self.path.display()) }
    }
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory)
}

/// A name goes into a path: nothing that is not a name may.
fn checked(webhook: &str) -> Result<&str, Failure> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match !webhook.is_empty() && webhook.bytes().all(fits) {
        true => Ok(webhook),
        false => Err(Failure { exit: 64, text: format!("{webhook:?} is not the name of a webhook (a-z, 0-9 and -)") }),
    }
}

#[async_trait]
impl Office for Remote {
    async fn home(&self) -> Result<String, Failure> {
        self.call(Method::GET, "/v1/home", Bytes::new()).await
    }

    async fn status(&self) -> Result<Vec<Status>, Failure> {
        self.call(Method::GET, "/v1/status", Bytes::new()).await
    }

    /// The daemon asks the kernel who is asking; `actor` is not sent.
    async fn perform(&self, webhook: &str, request: Request, _actor: &str) -> Result<Reply, Failure> {
        let body = serde_json::to_vec(&request).map_err(|error| Failure { exit: 70, text: error.to_string() })?;
        // It may hold the secret of an `adopt`.
        let body = Bytes::from_owner(Zeroizing::new(body));
        self.call(Method::POST, &format!("/v1/webhooks/{}", checked(webhook)?), body).await
    }

    async fn story(&self, webhook: &str, limit: u32) -> Result<Story, Failure> {
        self.call(Method::GET, &format!("/v1/webhooks/{}/story?limit={limit}", checked(webhook)?), Bytes::new()).await
    }
}
