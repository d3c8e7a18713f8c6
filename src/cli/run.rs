//! `run`: the daemon, and what surrounds it: control socket, status server, signals, systemd.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    access,
    exit::{Code, Stop},
};
use crate::{
    admin::{http::serve_status, socket},
    config::Config,
    daemon::{Daemon, Options},
};

pub async fn run(config: Config) -> Result<Code, Stop> {
    access::readable(&config).map_err(|error| Stop::new(Code::Config, error.to_string()))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options { purpose: access::DAEMON.to_owned(), only: None, doors: true, schedule: true, read_only: false };
    // The store's lock comes first: it is what keeps a second daemon from touching anything, the socket included.
    let daemon = Daemon::start(config.clone(), options).await?;
    let shutdown = CancellationToken::new();
    let mut servers = match serve(&config, &daemon, &shutdown).await {
        Ok(servers) => servers,
        Err(stop) => {
            daemon.stop().await;
            return Err(stop);
        }
    };
    tracing::info!(config = %config.path.display(), webhooks = config.webhooks.len(), "ready");
    notify(&[NotifyState::Ready]);
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(Code::Done),
        _ = terminate.recv() => Ok(Code::Done),
        () = daemon.wait() => Err(Stop::new(Code::Unreachable, "the daemon stopped by an error that the log above names; nothing is lost")),
    };
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    shutdown.cancel();
    while servers.join_next().await.is_some() {}
    daemon.stop().await;
    if let Some(path) = &config.listen.admin {
        // Left behind it would do no harm: the next daemon replaces it.
        let _ = std::fs::remove_file(path);
    }
    ended
}

/// Everything is bound before anything is served. Without a control socket nobody could ask for anything: that is an error.
async fn serve(config: &Config, daemon: &Daemon, shutdown: &CancellationToken) -> Result<JoinSet<()>, Stop> {
    let control = config.listen.admin.as_deref().map(bind_control).transpose()?;
    let status = match config.listen.status {
        Some(address) => {
            // A page for people is not worth a daemon that does not rotate.
            TcpListener::bind(address)
                .await
                .inspect_err(|error| tracing::error!("listen.status = \"{address}\": {error}; going on without the status page"))
                .ok()
        }
        None => None,
    };
    let mut servers = JoinSet::new();
    if let Some(listener) = control {
        servers.spawn(socket::serve(listener, daemon.office(), shutdown.clone()));
    }
    if let Some(listener) = status {
        servers.spawn(serve_status(listener, daemon.office(), shutdown.clone()));
    }
    if let Some(limit) = sd_notify::watchdog_enabled() {
        servers.spawn(watchdog(daemon.pulse(), limit / 3, shutdown.clone()));
    }
    Ok(servers)
}

fn bind_control(path: &std::path::Path) -> Result<UnixListener, Stop> {
    socket::bind(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Stop::new(Code::TryAgain, format!("listen.admin: {error}")),
        _ => Stop::new(Code::Config, format!("listen.admin = \"unix:{}\": {error}", path.display())),
    })
}

/// Pings only while the daemon's loop answers: a process that hangs is to be restarted.
async fn watchdog(alive: impl Fn() -> bool, every: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match alive() {
            true => notify(&[NotifyState::Watchdog]),
            false => tracing::warn!("no watchdog ping: the writer loop does not come round"),
        }
    }
}

fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
