//! The way to the daemon: through the control socket where one runs, else in this process, with the store's lock.

use std::{
    fmt::Write,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    admin::remote::Remote,
    config::{Config, Credential, CredentialError},
    daemon::{Daemon, Office, Options, StartError, Status},
    store::StoreError,
};

use super::exit::{Code, Stop};

pub struct Access {
    office: Arc<dyn Office>,
    /// `None`: a daemon runs elsewhere.
    here: Option<Daemon>,
}

/// What the store's lock says of a daemon.
pub const DAEMON: &str = "hookturn run";
/// A daemon has the store before it takes commands.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// What a command needs where no daemon runs.
pub struct Need<'a> {
    /// The command, for the one who finds the store in use.
    pub purpose: &'a str,
    /// Empty: every webhook.
    pub webhooks: &'a [String],
    /// Deliveries are listened for while it runs.
    pub doors: bool,
    /// It only looks.
    pub read_only: bool,
}

impl Access {
    pub async fn open(config: &Config, need: Need<'_>) -> Result<Access, Stop> {
        for name in need.webhooks {
            known(config, name)?;
        }
        if let Some(remote) = remote(config).await? {
            return Ok(Access { office: Arc::new(remote), here: None });
        }
        readable(config).map_err(|error| missing(config, &error))?;
        let options = Options {
            purpose: format!("hookturn {}", need.purpose),
            only: (!need.webhooks.is_empty()).then(|| need.webhooks.to_vec()),
            doors: need.doors,
            schedule: false,
            read_only: need.read_only,
        };
        let began = Instant::now();
        let mut waiting = false;
        loop {
            match Daemon::start(config.clone(), options.clone()).await {
                Err(StartError::Store(StoreError::Held { holder, .. }))
                    if holder.starts_with(DAEMON) && config.listen.admin.is_some() && began.elapsed() < STARTS_WITHIN =>
                {
                    if !std::mem::replace(&mut waiting, true) {
                        eprintln!("hookturn: {holder} holds the store and takes no commands yet: waiting for it");
                    }
                    if let Some(remote) = remote(config).await? {
                        return Ok(Access { office: Arc::new(remote), here: None });
                    }
                }
                started => {
                    let daemon = started?;
                    return Ok(Access { office: daemon.office(), here: Some(daemon) });
                }
            }
        }
    }

    pub fn office(&self) -> &dyn Office {
        &*self.office
    }

    /// A daemon runs elsewhere, and goes on when this command has ended.
    pub fn daemon_runs(&self) -> bool {
        self.here.is_none()
    }

    /// Ends only where the daemon in this process has stopped by an error.
    pub async fn failed(&self) {
        match &self.here {
            Some(daemon) => daemon.wait().await,
            None => std::future::pending().await,
        }
    }

    pub async fn status_of(&self, name: &str) -> Result<Status, Stop> {
        let statuses = self.office.status().await?;
        statuses.into_iter().find(|status| status.name == name).ok_or_else(|| unknown_to_daemon(name))
    }

    pub async fn close(self) {
        if let Some(daemon) = self.here {
            daemon.stop().await;
        }
    }
}

/// Who does it, for the journal.
pub fn actor() -> String {
    format!("operator uid={}", rustix::process::getuid().as_raw())
}

/// A webhook that the configuration does not have is a wrong usage.
pub fn known<'c>(config: &'c Config, name: &str) -> Result<&'c crate::config::Webhook, Stop> {
    config.webhook(name).ok_or_else(|| {
        let names: Vec<&str> = config.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
        let there = match names.is_empty() {
            true => "it has none yet".to_owned(),
            false => format!("it has {}", names.join(", ")),
        };
        Stop::usage(format!("{} has no webhook {name:?}; {there}", config.path.display()))
    })
}

pub fn unknown_to_daemon(name: &str) -> Stop {
    let text = format!("the running daemon does not know webhook {name}: restart it, so that it reads the configuration again");
    Stop::new(Code::PersonNeeded, text)
}

async fn remote(config: &Config) -> Result<Option<Remote>, Stop> {
    let Some(path) = &config.listen.admin else { return Ok(None) };
    let found = Remote::connect(path).await.map_err(|error| {
        let way_out = match error.kind() {
            io::ErrorKind::PermissionDenied => "; a daemon may run there: use sudo, or join the group that owns the socket",
            _ => "",
        };
        Stop::new(Code::Unreachable, format!("control socket {}: {error}{way_out}", path.display()))
    })?;
    let Some(remote) = found else { return Ok(None) };
    let (theirs, ours) = (remote.home().await?, crate::daemon::home(config));
    if theirs.is_empty() || theirs == ours {
        return Ok(Some(remote));
    }
    eprintln!("hookturn: the daemon at {} works on {theirs}, not on {ours}; this command works without it", path.display());
    Ok(None)
}

/// Without these the work cannot be done here. Looked at before the store is touched.
pub fn readable(config: &Config) -> Result<(), CredentialError> {
    [&config.dialnexa.api_key, &config.store.sealing_key].into_iter().try_for_each(|credential| credential.read().map(drop))
}

/// The error, and the line that runs the same command with the credentials of a unit.
pub fn missing(config: &Config, error: &CredentialError) -> Stop {
    let mut text = format!("no daemon is running, and this shell lacks a credential\n  {error}");
    if matches!(error, CredentialError::NoCredentials(_) | CredentialError::NotLoaded(_)) {
        let _ = write!(text, "\nthis would have it (change the paths if your unit says others):\n  {}", systemd_run(config));
    }
    Stop::new(Code::Config, text)
}

/// The command as it was typed, with the credentials of a unit. Their files are looked for beside the configuration, where
/// `init` puts them.
pub fn systemd_run(config: &Config) -> String {
    let file = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
    let directory = file.parent().map(|path| path.display().to_string()).unwrap_or_default();
    let mut line = "systemd-run --pipe --wait".to_owned();
    for credential in named_credentials(config) {
        let _ = write!(line, " -p LoadCredential={credential}:{directory}/{credential}");
    }
    let _ = write!(line, " -p User=hookturn -p StateDirectory=hookturn hookturn -c {}", file.display());
    let mut typed = std::env::args().skip(1);
    while let Some(word) = typed.next() {
        match word.as_str() {
            "-c" | "--config" => drop(typed.next()),
            other if other.starts_with("--config=") || (other.starts_with("-c") && !other.starts_with("--")) => {}
            other => line.extend([" ", &quoted(other)]),
        }
    }
    line
}

/// For a shell to read back as one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn named_credentials(config: &Config) -> Vec<&str> {
    let tokens = config.webhooks.iter().flat_map(|webhook| [&webhook.verify.report_token, &webhook.verify.tap_token]);
    let all = [&config.dialnexa.api_key, &config.store.sealing_key].into_iter().chain(tokens.flatten());
    let mut names: Vec<&str> = all
        .filter_map(|credential| match credential {
            Credential::Systemd(name) => Some(name.as_str()),
            Credential::File(_) | Credential::Env(_) => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
