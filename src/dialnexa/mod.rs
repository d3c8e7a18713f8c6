//! DialNexa's side of the wire: the REST client and the signature of its deliveries.
//!
//! [`Client`] asks and updates through reqwest; the PATCH of a secret goes over a [`Line`], which is opened before the intent is
//! written and never again. [`wire`] says what an answer means, [`Endpoint`] where DialNexa may be, [`signature`] how a
//! delivery is signed. Nothing here repeats a request, and nothing keeps a body.

mod client;
mod endpoint;
mod line;
mod tls;
pub mod wire;

pub use client::{Client, ClientError, Settings};
pub use endpoint::{BadBaseUrl, BadId, Endpoint, check_id};
pub use tls::TlsError;

use std::time::Duration;

use async_trait::async_trait;

pub use crate::secret::signature;
use crate::{rotation::PatchAnswer, secret::Secret};

/// The provider: DialNexa itself, the sandbox, or a test.
#[async_trait]
pub trait Provider: Send + Sync {
    /// `GET {base_url}/user-webhooks/{id}`.
    async fn get(&self, id: &str) -> Result<Webhook, ProviderError>;

    /// Every webhook of the account, all pages.
    async fn list(&self) -> Result<Vec<Webhook>, ProviderError>;

    /// Changes the given fields and no other; never the secret.
    async fn update(&self, id: &str, update: &Update) -> Result<Webhook, ProviderError>;

    /// Opens a fresh connection for one PATCH of a secret. Nothing is sent; never re-dialled, never shared.
    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError>;
}

/// One open connection that carries one PATCH and is then closed.
#[async_trait]
pub trait Line: Send {
    /// Sends `{"secret": ...}` and nothing else, and classifies the answer. `deadline` bounds the whole exchange.
    async fn patch_secret(self: Box<Self>, id: &str, secret: &Secret, deadline: Duration) -> PatchReport;
}

/// A webhook as DialNexa shows it. Its secret is never read, even where an answer holds one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Webhook {
    pub id: String,
    pub url: Option<String>,
    pub events: Vec<String>,
    pub is_active: Option<bool>,
    pub created_at: Option<String>,
}

/// What `webhook update` may send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    pub url: Option<String>,
    pub events: Option<Vec<String>>,
    pub is_active: Option<bool>,
}

/// How a PATCH of the secret ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchReport {
    pub answer: PatchAnswer,
    /// One line for a person: status, time, request id, the provider's own message. Never a body, never a secret.
    pub text: String,
}

/// Why the provider gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("DialNexa refuses the API key ({status}): {message}")]
    ApiKeyRefused { status: u16, message: String },
    #[error("DialNexa has no webhook {id} under this API key (404): {message}")]
    NotFound { id: String, message: String },
    #[error("DialNexa refuses the request ({status}): {message}")]
    Refused { status: u16, message: String },
    #[error("DialNexa asks to wait ({}): {message}", .wait.map_or("429".to_owned(), |w| format!("429, {} s", w.as_secs())))]
    Limited { wait: Option<Duration>, message: String },
    #[error("DialNexa is unreachable: {0}")]
    Unreachable(String),
    #[error("DialNexa's answer makes no sense: {0}")]
    Nonsense(String),
}
