//! What a configuration means: checked once, so that the rest of the program never re-checks.
//!
//! The way in: `layers.rs` lays a webhook's table over `[defaults]` over the shipped file, `shape.rs` reads the result into
//! `raw.rs` (what the file may say), `check.rs` and `webhook.rs` decide what it means, and collect everything that is wrong.

mod check;
mod credential;
mod error;
mod layers;
mod nearest;
mod preflight;
mod raw;
mod redact;
mod section;
mod shape;
mod timing;
mod value;
mod verify;
mod webhook;

pub use credential::{Credential, CredentialError};
pub use error::{ConfigError, Problem};
pub use layers::SHIPPED;
pub use timing::{Cron, Window};
pub use value::{BadValue, duration, duration_text};

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::rotation::Policy;

/// A whole configuration, every default filled in and every value known to be sound.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, for messages.
    pub path: PathBuf,
    pub dialnexa: Dialnexa,
    pub store: Store,
    pub listen: Listen,
    pub notify: Option<Notify>,
    pub webhooks: Vec<Webhook>,
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Config::parse(path, &text),
            Err(e) => {
                let problem = Problem::new(format!("the configuration cannot be read: {e}"))
                    .help("`hookturn init` writes one; -c FILE or HOOKTURN_CONFIG names another");
                Err(ConfigError::new(path.to_owned(), "", vec![problem]))
            }
        }
    }

    /// Checks a text as if it were the content of the file `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        check::check(path, text).map_err(|problems| ConfigError::new(path.to_owned(), text, problems))
    }

    pub fn webhook(&self, name: &str) -> Option<&Webhook> {
        self.webhooks.iter().find(|webhook| webhook.name == name)
    }

    /// A digest of what must not move under a rotation: the webhook's id, DialNexa's address, the keystore's place.
    pub fn identity(&self, webhook: &Webhook) -> u64 {
        let mut digest = Sha256::new();
        for part in [webhook.id.as_str(), self.dialnexa.base_url.as_str(), webhook.keystore.to_string().as_str()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&digest.finalize()[..8]);
        u64::from_be_bytes(first)
    }
}

impl Keystore {
    /// How many secrets fit at a time; `None` is any number.
    pub fn slots(&self) -> Option<u8> {
        match self {
            Keystore::File { format: Format::Json, .. } => None,
            Keystore::File { format: Format::Env, .. } => Some(2),
            Keystore::Exec { slots, .. } => *slots,
        }
    }
}

/// The place: `file /var/lib/hookturn-keys/billing/secrets.json`.
impl fmt::Display for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keystore::File { path, .. } => write!(f, "file {}", path.display()),
            Keystore::Exec { command, .. } => write!(f, "exec {}", command.argv.join(" ")),
        }
    }
}

/// What the schedule says, as a person wrote it: `every 30d, Mon-Thu 09:00-16:00, Europe/Paris, jitter 2h`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Never => return f.write_str("on demand only"),
            Rule::Every(period) => write!(f, "every {}", duration_text(*period))?,
            Rule::Cron(cron) => write!(f, "cron {cron}")?,
        }
        if let Some(window) = &self.window {
            write!(f, ", {window}")?;
        }
        write!(f, ", {}", self.timezone)?;
        match self.jitter {
            Duration::ZERO => Ok(()),
            jitter => write!(f, ", jitter {}", duration_text(jitter)),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Dialnexa {
    /// Without a trailing slash; `https`, or `http` to a loopback address.
    pub base_url: String,
    pub api_key: Credential,
    /// A PEM bundle to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Store {
    /// The SQLite file.
    pub path: PathBuf,
    pub sealing_key: Credential,
    /// The witness outside the database that a restored backup is recognised by.
    pub anchor: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Listen {
    /// `POST /report/{name}`, `POST /tap/{name}`. `None` (written `"off"`): no doors.
    pub deliveries: Option<SocketAddr>,
    /// The control socket's path. `None`: off.
    pub admin: Option<PathBuf>,
    pub status: Option<SocketAddr>,
    /// `POST /hook/{name}` of `hookturn receive`.
    pub gateway: Option<SocketAddr>,
    /// Cap on one body, in bytes.
    pub max_body: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub gateway_connections: usize,
    /// Bytes of bodies that the gateway holds at a time.
    pub gateway_memory: usize,
}

#[derive(Debug, Clone)]
pub struct Notify {
    pub exec: Vec<String>,
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub name: String,
    pub id: String,
    pub schedule: Schedule,
    pub policy: Policy,
    pub patch_timeout: Duration,
    pub keystore: Keystore,
    pub preflight: Preflight,
    pub verify: Verify,
    /// Where the proxy in front of the tap tells what the consumer answered.
    pub tap_answers: Option<PathBuf>,
    /// `None`: `hookturn receive` does not serve this webhook.
    pub gateway: Option<Gateway>,
    pub stimulus: Option<Stimulus>,
}

/// How `hookturn receive` passes deliveries of a webhook on.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// `http://host:port/path`, without a query.
    pub upstream: String,
    pub mode: Mode,
    /// The secret that deliveries are signed with again, where the consumer behind knows one that never changes.
    pub resign: Option<Credential>,
    /// For the consumer's answer.
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What no accepted key signed is answered 401 and not passed on.
    Enforce,
    /// Everything is passed on.
    Observe,
}

/// When a webhook is rotated by itself.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub rule: Rule,
    pub timezone: chrono_tz::Tz,
    pub window: Option<Window>,
    pub jitter: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// On demand only.
    Never,
    Every(Duration),
    Cron(Cron),
}

#[derive(Debug, Clone)]
pub enum Keystore {
    File { path: PathBuf, format: Format, reload: Option<Command> },
    Exec { command: Command, slots: Option<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Env,
}

/// A program of the user's, run without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub argv: Vec<String>,
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Preflight {
    /// One URL per replica; `{replica}` in it stands for each address of `replicas`.
    pub probe: Vec<String>,
    /// The same, where a GET answers what the replica has loaded.
    pub read_back: Vec<String>,
    /// Patterns of files in which replicas say the same, one each.
    pub read_back_files: Vec<String>,
    pub read_back_token: Option<Credential>,
    /// Who the replicas are, where they come and go.
    pub replicas: Option<Membership>,
    pub probe_body: ProbeBody,
    /// Replicas write status files beside the keystore file, from the first rotation on.
    pub status: bool,
}

/// Where the addresses of the replicas are had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// Every address of a name, with this port: `billing.internal:9000`.
    Dns(String),
    /// One `HOST:PORT` a line.
    File(PathBuf),
}

impl Preflight {
    /// What an address of `replicas` takes the place of.
    pub const PLACE: &str = "{replica}";

    /// Replicas are asked by name, not found through the status files of the keystore.
    pub fn asks(&self) -> bool {
        !(self.probe.is_empty() && self.read_back.is_empty() && self.read_back_files.is_empty())
    }

    /// Who they are is looked up again and again.
    pub fn come_and_go(&self) -> bool {
        self.replicas.is_some() || !self.read_back_files.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeBody {
    Unparseable,
    Json,
}

#[derive(Debug, Clone)]
pub struct Verify {
    pub sources: Vec<Door>,
    /// Doors that must each have shown the target before anything counts as the proof. Empty: any of the sources will do.
    pub require: Vec<Door>,
    pub ignore: Vec<Ignore>,
    pub report_token: Option<Credential>,
    pub tap_token: Option<Credential>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    Report,
    Keystore,
    Tap,
    Gateway,
}

impl Door {
    pub fn name(self) -> &'static str {
        match self {
            Door::Report => "report",
            Door::Keystore => "keystore",
            Door::Tap => "tap",
            Door::Gateway => "gateway",
        }
    }
}

/// Signed traffic that is no evidence: a team's own synthetic checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignore {
    /// It carries this header, with this value where one is given.
    Header { name: String, value: Option<String> },
    /// It comes from here: the first so many bits of the address are these.
    Address { network: IpAddr, bits: u8 },
}

/// What provokes a delivery, with a person's approval: at most once in a rotation that waits for nothing else.
#[derive(Debug, Clone)]
pub struct Stimulus {
    pub what: Provocation,
    /// How long silence is waited out first.
    pub after: Duration,
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub enum Provocation {
    Run(Vec<String>),
    Post { url: String, token: Option<Credential> },
}
