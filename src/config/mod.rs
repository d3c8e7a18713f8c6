//! What a configuration means: checked once, so that the rest of the program never re-checks.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

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

#[derive(Debug, Clone)]
pub struct Dialnexa {
    /// Without a trailing slash; `https`, or `http` to a loopback address.
    pub base_url: String,
    pub api_key: Credential,
    /// A PEM bundle to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a credential is read from, each time it is needed; the value is never part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `$CREDENTIALS_DIRECTORY/NAME`, as systemd hands it over.
    Systemd(String),
    File(PathBuf),
    Env(String),
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
    /// Cap on one body, in bytes.
    pub max_body: usize,
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
}

/// When a webhook is rotated by itself.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub rule: Rule,
    pub timezone: chrono_tz::Tz,
    pub window: Option<crate::schedule::Window>,
    pub jitter: Duration,
}

#[derive(Debug, Clone)]
pub enum Rule {
    /// On demand only.
    Never,
    Every(Duration),
    Cron(crate::schedule::Cron),
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
    /// One URL per replica.
    pub probe: Vec<String>,
    pub probe_body: ProbeBody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeBody {
    Unparseable,
    Json,
}

#[derive(Debug, Clone)]
pub struct Verify {
    pub sources: Vec<Door>,
    pub report_token: Option<Credential>,
    pub tap_token: Option<Credential>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    Report,
    Keystore,
    Tap,
}
