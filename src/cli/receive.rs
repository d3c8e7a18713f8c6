//! `receive`: the gateway, a process of its own in the path of deliveries.

use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::exit::{Code, Stop};
use crate::{
    config::Config,
    gateway::{self, GatewayError, Poke, Prepared},
};

/// Serves until it is told to stop; then until every delivery under way has its answer.
pub async fn receive(config: Config) -> Result<Code, Stop> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let poke = Poke::default();
    let prepared = Prepared::new(&config, gateway::limits(&config), &poke).await.map_err(refused)?;
    let (listener, inherited) = listener(&config)?;
    let shutdown = CancellationToken::new();
    let address = listener.local_addr()?;
    let mut serving = tokio::spawn(prepared.serve(listener, inherited, shutdown.clone()));
    tracing::info!(%address, inherited, "ready");
    notify(NotifyState::Ready);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => poke.notify_waiters(),
            _ = &mut serving => return Err(Stop::new(Code::Bug, "the gateway has stopped by itself")),
        }
    }
    tracing::info!("stopping: deliveries under way get their answers first; a second signal cuts them off");
    notify(NotifyState::Stopping);
    shutdown.cancel();
    tokio::select! {
        _ = &mut serving => Ok(Code::Done),
        _ = interrupt.recv() => Ok(Code::PersonNeeded),
        _ = terminate.recv() => Ok(Code::PersonNeeded),
    }
}

/// The socket that systemd holds, or one of our own.
fn listener(config: &Config) -> Result<(TcpListener, bool), Stop> {
    if let Some(inherited) = listenfd::ListenFd::from_env().take_tcp_listener(0)? {
        inherited.set_nonblocking(true)?;
        return Ok((TcpListener::from_std(inherited)?, true));
    }
    let address = config
        .listen
        .gateway
        .ok_or_else(|| Stop::new(Code::Config, "listen.gateway is \"off\": there is no address to listen on"))?;
    let bound = gateway::bind(address);
    let listener = bound.map_err(|error| Stop::new(Code::Unreachable, format!("listen.gateway = \"{address}\": {error}")))?;
    Ok((listener, false))
}

fn refused(error: GatewayError) -> Stop {
    Stop::new(Code::Config, error.to_string())
}

fn notify(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
