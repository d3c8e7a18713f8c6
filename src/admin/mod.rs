//! How other processes talk to a running daemon.
//!
//! - [`socket`]: the control API for the commands, on a unix socket that only its owner and group can open.
//! - [`remote`]: the other end of it, so that a command need not know where the daemon is.
//! - [`http`]: the status page, metrics and health checks. They change nothing.

pub mod http;
mod metrics;
mod page;
pub mod remote;
pub mod socket;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long requests under way may take to end once the daemon stops. None of them is needed for safety.
const GRACE: Duration = Duration::from_secs(3);

/// Runs `server` to its end, but no longer than [`GRACE`] after `shutdown`.
async fn until_shutdown(server: impl Future<Output = std::io::Result<()>>, shutdown: CancellationToken, what: &str) {
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server => if let Err(error) = ended {
            tracing::error!(%error, "{what} has stopped serving");
        },
        () = late => tracing::warn!("{what}: requests under way were cut off"),
    }
}
