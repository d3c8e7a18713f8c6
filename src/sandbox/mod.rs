//! A DialNexa look-alike, a sample consumer and traffic between them, all of it real HTTP on loopback.
//!
//! ```text
//! provider --POST--> balancer --> web-1, web-2, ... (consumer)
//!    ^ PATCH                         | read the keystore file, write status files,
//!    |                               | report and mirror to the doors
//! hookturn -- writes the keystore ---+
//! ```
//!
//! [`Sandbox`] is the whole; [`provider`], [`consumer`] and [`balancer`] stand alone too. How to break each of them, from a
//! shell or from a test: docs/sandbox.md.

pub mod balancer;
pub mod consumer;
pub mod demo;
pub mod drill;
mod files;
mod http;
pub mod provider;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::secret::{BadSecret, NoRandomness, Secret};

use self::{
    balancer::Balancer,
    consumer::{Consumer, ConsumerOptions, Doors, RunningConsumer},
    provider::{Provider, ProviderOptions, Settings},
};

/// How a sandbox starts. [`SandboxOptions::new`] has values that suit a person who watches.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Everything on disk goes here; created 0700 if it is not there.
    pub dir: PathBuf,
    /// The webhook's name in hookturn's configuration.
    pub name: String,
    /// Where the provider listens; port 0: any free one.
    pub provider: SocketAddr,
    pub settings: Settings,
    pub replicas: usize,
    /// How often a replica reads the keystore file.
    pub refresh: Duration,
    /// How often a replica may write its status file; `None`: never.
    pub status_every: Option<Duration>,
    /// Events per second.
    pub per_second: f64,
    /// Whether the consumer reports its deliveries, and whether it mirrors them, to the daemon.
    pub reports: bool,
    pub mirror: bool,
    /// For the configuration that [`Sandbox::write_config`] writes.
    pub quarantine: Duration,
    pub drain: Duration,
    pub wait: Duration,
    pub patch_timeout: Duration,
    pub repeat_min: Duration,
    pub repeat_max: Duration,
}

impl SandboxOptions {
    pub fn new(dir: PathBuf) -> SandboxOptions {
        SandboxOptions {
            dir,
            name: "billing".to_owned(),
            provider: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            settings: Settings::default(),
            replicas: 2,
            refresh: Duration::from_millis(500),
            status_every: Some(Duration::from_secs(1)),
            per_second: 2.0,
            reports: true,
            mirror: false,
            quarantine: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            wait: Duration::from_secs(1),
            patch_timeout: Duration::from_secs(2),
            repeat_min: Duration::from_secs(1),
            repeat_max: Duration::from_secs(10),
        }
    }
}

/// A whole little world. Dropping it stops it; what it wrote stays.
pub struct Sandbox {
    pub provider: provider::Running,
    pub consumer: RunningConsumer,
    pub front: Balancer,
    /// The consumer's keystore file.
    pub keystore: PathBuf,
    pub api_key: Secret,
    pub webhook_id: String,
    /// Where hookturn is to listen, and where the consumer sends its reports.
    pub deliveries: SocketAddr,
    pub status: SocketAddr,
    dir: PathBuf,
    options: SandboxOptions,
}

/// The id of the sandbox's webhook.
const WEBHOOK_ID: &str = "whk_sandbox00001";

impl Sandbox {
    /// Starts everything; traffic flows when this returns.
    pub async fn start(options: SandboxOptions) -> Result<Sandbox, SandboxError> {
        let credentials = files::prepare(&options.dir, WEBHOOK_ID)?;
        let keystore = files::keystore(&options.dir);
        let [deliveries, status] = files::free_ports()?;
        let doors = Doors {
            base: format!("http://{deliveries}"),
            name: options.name.clone(),
            report_token: Some(credentials.report_token),
            tap_token: None,
            reports: options.reports,
            mirror: options.mirror,
        };
        let consumer = Consumer::start(ConsumerOptions {
            keystore: keystore.clone(),
            replicas: options.replicas,
            refresh: options.refresh,
            status_every: options.status_every,
            doors: Some(doors),
        })
        .await?;
        let front = Balancer::start(consumer.targets()).await?;
        let provider_options =
            ProviderOptions { settings: options.settings, ..ProviderOptions::new(credentials.api_key.clone()) };
        let provider = Provider::start(options.provider, provider_options).await?;
        provider.handle.add_webhook(WEBHOOK_ID, &front.url(), &["call.completed"], credentials.signing);
        provider.handle.traffic(WEBHOOK_ID, options.per_second);
        let (api_key, webhook_id, dir) = (credentials.api_key, WEBHOOK_ID.to_owned(), options.dir.clone());
        Ok(Sandbox { provider, consumer, front, keystore, api_key, webhook_id, deliveries, status, dir, options })
    }

    /// The provider's `base_url` for hookturn.
    pub fn base_url(&self) -> String {
        self.provider.base_url()
    }

    /// The provider's handle.
    pub fn handle(&self) -> &Provider {
        &self.provider.handle
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file (0600) with the secret that the provider signed with at the start: what `hookturn adopt` takes.
    pub fn secret_file(&self) -> PathBuf {
        self.dir.join("initial-secret")
    }

    /// Stops everything; the files stay, but for the replicas' status files.
    pub async fn shutdown(self) {
        self.provider.shutdown().await;
        self.front.shutdown().await;
        self.consumer.shutdown().await;
    }
}

/// Why a part of the sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot listen on {addr}")]
    Bind {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the HTTP client does not start")]
    Client(#[source] reqwest::Error),
    #[error("cannot {action} {path}")]
    File {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} is left from an earlier run and cannot be used: {reason}; remove it, or choose another directory")]
    Credential { path: PathBuf, reason: BadSecret },
    #[error("{path} is left from an earlier run and cannot be used: {reason}; remove it, or choose another directory")]
    Keystore { path: PathBuf, reason: &'static str },
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}
