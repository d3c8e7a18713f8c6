//! `hookturn receive`: a verifying reverse proxy in front of a consumer that can hold only one secret, or none.
//!
//! ```text
//! DialNexa --POST /hook/billing--> gateway --same bytes--> consumer
//!                                    | reads the keystore file, writes a status file
//!                                    | dispatches what was passed on ----> daemon (when it is there)
//! ```
//!
//! The gateway *is* a consumer replica: it reads the keystore file that the daemon writes (docs/consumers.md), accepts every
//! key in it, and writes a status file beside it. So the daemon needs no other way to hand it keys, to ask it, or to wait for
//! it. It has no store, no API key, no sealing key, and it asks the daemon for nothing: a stalled disk, a wrong configuration
//! or a restart of the daemon never stops deliveries.
//!
//! - [`keys`]: the last good content of the keystore file.
//! - [`receive`]: one request, from its first byte to the consumer's answer.
//! - [`pairs`]: long bodies, verified two at a time.
//! - [`crew`]: the threads on which that happens.
//! - [`headers`]: what of it is passed on. Pure.
//! - [`upstream`]: connections to the consumer.
//! - [`outbox`]: what the daemon is told, and when.
//! - [`status`]: the status file, and the name of this replica.

mod crew;
mod headers;
mod keys;
mod outbox;
mod pairs;
mod receive;
mod status;
mod upstream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chrono::{SecondsFormat, Utc};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use keys::Poke;

use crate::{
    config::{Config, CredentialError, Keystore},
    evidence::{Limits, Reception},
    secret::{BadSecret, Secret},
};
use crew::Crew;
use receive::{Gateway, Site};

/// After a signal to stop, how long a silent connection is still listened to.
const LINGER: Duration = Duration::from_secs(3);
/// For the last words to the daemon.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("no webhook has a gateway: add gateway = {{ upstream = \"http://127.0.0.1:9000/hook\" }} to one")]
    NoWebhook,
    #[error("webhook {webhook}: gateway.resign: {source}")]
    Credential { webhook: String, source: CredentialError },
    #[error("webhook {webhook}: gateway.resign: {source}")]
    BadSecret { webhook: String, source: BadSecret },
    #[error("webhook {webhook}: gateway.upstream: {reason}")]
    Upstream { webhook: String, reason: String },
    #[error("no threads to serve with: {0}")]
    Threads(std::io::Error),
}

/// A gateway that has read its keys and what it was configured with, and does not listen yet.
pub struct Prepared {
    reception: Reception,
    crew: Crew,
    tasks: JoinSet<()>,
    last_words: CancellationToken,
}

impl Prepared {
    /// Reads every keystore once, so that a gateway that listens has its keys wherever they can be had.
    pub async fn new(config: &Config, limits: Limits, poke: &Poke) -> Result<Prepared, GatewayError> {
        let started_at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let (mut sites, mut tasks, last_words) = (Vec::new(), JoinSet::new(), CancellationToken::new());
        for webhook in &config.webhooks {
            let (Some(gateway), Keystore::File { path, .. }) = (&webhook.gateway, &webhook.keystore) else { continue };
            let name = || webhook.name.clone();
            let inner = gateway.resign.as_ref().map(|credential| {
                let text = credential.read().map_err(|source| GatewayError::Credential { webhook: name(), source })?;
                Secret::parse(&text).map_err(|source| GatewayError::BadSecret { webhook: name(), source })
            });
            let upstream = upstream::Upstream::new(&gateway.upstream)
                .map_err(|reason| GatewayError::Upstream { webhook: name(), reason })?;
            let watch = keys::Watch::begin(path.clone(), &webhook.name).await;
            let status = status::StatusFile::claim(path, &started_at).await;
            let outbox = Arc::new(outbox::Outbox::new(status.replica().to_owned(), started_at.clone()));
            let site = Arc::new(Site {
                name: name(),
                keys: watch.keys(),
                upstream,
                mode: gateway.mode,
                inner: inner.transpose()?,
                timeout: gateway.timeout,
                outbox: outbox.clone(),
                tally: Default::default(),
                ignore: webhook.verify.ignore.clone(),
            });
            tasks.spawn(watch.go_on(poke.clone(), last_words.clone()));
            tasks.spawn(status.keep(site.clone(), last_words.clone()));
            if let Some(daemon) = config.listen.deliveries {
                let stale = Duration::from_millis(webhook.policy.drain / 4);
                tasks.spawn(outbox::carry(site.clone(), daemon, stale, last_words.clone()));
            }
            sites.push(site);
        }
        if sites.is_empty() {
            return Err(GatewayError::NoWebhook);
        }
        let reception = Reception::new(limits);
        let crew = Crew::start(|| Gateway::new(reception.clone(), &sites)).map_err(GatewayError::Threads)?;
        Ok(Prepared { reception, crew, tasks, last_words })
    }

    /// Serves until `shutdown`, and then until what is under way has ended. `shared`: others accept from the same socket.
    pub async fn serve(mut self, listener: TcpListener, shared: bool, shutdown: CancellationToken) {
        let Crew { hands, end: _threads } = self.crew;
        self.reception.serve(listener, hands, shared, shutdown).await;
        self.last_words.cancel();
        let _ = tokio::time::timeout(FAREWELL, async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

/// The limits of a configuration.
pub fn limits(config: &Config) -> Limits {
    let listen = &config.listen;
    let answers = config.webhooks.iter().filter_map(|webhook| webhook.gateway.as_ref().map(|gateway| gateway.timeout));
    Limits {
        max_body: listen.max_body,
        max_memory: listen.gateway_memory,
        header_timeout: listen.header_timeout,
        body_timeout: listen.body_timeout,
        max_connections: listen.gateway_connections,
        max_in_flight: listen.gateway_connections,
        linger: LINGER,
        // Whoever waits for the consumer gets the consumer's answer.
        drain: answers.max().unwrap_or_default() + listen.body_timeout + LINGER,
        max_age: Duration::from_secs(3600),
    }
}

/// A socket of our own, beside others of the same port: two gateways can listen side by side, and a new one before the old one
/// has gone.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}
