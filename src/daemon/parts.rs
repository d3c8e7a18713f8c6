//! What a daemon is made of, each chosen once: the machine's own, or a simulation's.

use std::{sync::Arc, time::Duration};

use super::{clock::Clock, running::Options};
use crate::{
    config::{self, Config, Credential, CredentialError},
    dialnexa::{Client, ClientError, Provider, Settings},
    evidence::Prober,
    keystore::{self, Keystore},
    secret::{BadSecret, SealingError, SealingKey, Secret},
    steps::{Chance, SystemChance},
    store::{Memory, Opening, Sqlite, Store, StoreError},
};

/// Everything that a daemon reaches the world through. Taken over whole by [`Daemon::build`](super::Daemon::build).
pub struct Parts {
    pub clock: Clock,
    pub chance: Arc<dyn Chance>,
    pub sealing: SealingKey,
    pub provider: Arc<dyn Provider>,
    pub prober: Prober,
    pub store: Arc<dyn Store>,
    /// The webhooks that are looked after, each with its keystore.
    pub webhooks: Vec<(config::Webhook, Box<dyn Keystore>)>,
    pub alarm: Alarm,
}

/// What wakes the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// The cron scheduler, by the machine's clock, and a plain timer as a belt.
    Cron,
    /// The plain timer alone: in the runtime's time, which need not be the machine's.
    Timer,
}

impl Parts {
    /// The parts that a configuration names, on this machine. Takes the store.
    pub async fn of_machine(config: &Config, options: &Options) -> Result<Parts, StartError> {
        let clock = Clock::system();
        let selected = select(config, options.only.as_deref())?;
        let sealing = SealingKey::parse(&read("store.sealing_key", &config.store.sealing_key)?)?;
        let provider = provider(config)?;
        let store = open_store(config, options, &clock).await?;
        let prober = Prober::new(Duration::from_secs(5)).map_err(|error| StartError::Setup(error.to_string()))?;
        let keystore = |webhook: &config::Webhook| keystore::build(&webhook.keystore, &webhook.name, &webhook.id);
        let webhooks = selected.into_iter().map(|webhook| (webhook.clone(), keystore(&webhook))).collect();
        Ok(Parts { clock, chance: Arc::new(SystemChance), sealing, provider, prober, store, webhooks, alarm: Alarm::Cron })
    }
}

/// Why a daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{what}: {source}")]
    Credential { what: &'static str, source: CredentialError },
    #[error("{what}: {source}")]
    BadCredential { what: &'static str, source: BadSecret },
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the doors at {address} cannot be opened: {reason}")]
    Doors { address: std::net::SocketAddr, reason: String },
    #[error("no webhook is called {0:?}")]
    NoSuchWebhook(String),
    #[error("{0}")]
    Setup(String),
}

impl StartError {
    /// The exit code of a command that ends with it.
    pub fn exit(&self) -> u8 {
        match self {
            StartError::Credential { .. } | StartError::BadCredential { .. } | StartError::Client(_) => 78,
            StartError::Sealing(SealingError::BadKey) => 78,
            StartError::Sealing(_) => 1,
            StartError::Store(StoreError::Held { .. }) => 75,
            StartError::Store(StoreError::TooNew { .. } | StoreError::Damaged { .. }) => 1,
            StartError::Store(_) | StartError::Doors { .. } => 69,
            StartError::NoSuchWebhook(_) => 64,
            StartError::Setup(_) => 70,
        }
    }

    /// A credential of the unit is missing in this environment.
    pub fn lacks_credentials(&self) -> bool {
        matches!(self, StartError::Credential { .. })
    }
}

/// How long a store that another process holds is waited for.
const HELD_AT_MOST_MS: u64 = 2_000;
fn select(config: &Config, only: Option<&[String]>) -> Result<Vec<config::Webhook>, StartError> {
    let Some(only) = only else { return Ok(config.webhooks.clone()) };
    only.iter().map(|name| config.webhook(name).cloned().ok_or_else(|| StartError::NoSuchWebhook(name.clone()))).collect()
}

fn read(what: &'static str, credential: &Credential) -> Result<zeroize::Zeroizing<String>, StartError> {
    credential.read().map_err(|source| StartError::Credential { what, source })
}

pub(super) fn secret(what: &'static str, credential: &Credential) -> Result<Secret, StartError> {
    Secret::parse(read(what, credential)?.trim_end()).map_err(|source| StartError::BadCredential { what, source })
}

/// The provider that a configuration names.
pub fn provider(config: &Config) -> Result<Arc<dyn Provider>, StartError> {
    let settings = Settings {
        base_url: config.dialnexa.base_url.clone(),
        api_key: secret("dialnexa.api_key", &config.dialnexa.api_key)?,
        ca_file: config.dialnexa.ca_file.clone(),
        timeout: Duration::from_secs(10),
    };
    Ok(Arc::new(Client::new(settings)?))
}

/// The store, or for those who only look a view of it that takes no lock. A command that is just ending is waited for.
async fn open_store(config: &Config, options: &Options, clock: &Clock) -> Result<Arc<dyn Store>, StartError> {
    let path = &config.store.path;
    if options.read_only {
        return Ok(match Sqlite::look(path).await? {
            Some(store) => Arc::new(store),
            None => Arc::new(Memory::new()),
        });
    }
    let began = clock.boottime_ms();
    loop {
        let opening = Opening { command: options.purpose.clone(), at: clock.unix_millis() };
        match Sqlite::open(path, opening).await {
            Err(StoreError::Held { .. }) if clock.boottime_ms() - began < HELD_AT_MOST_MS => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            opened => return Ok(Arc::new(opened?)),
        }
    }
}
