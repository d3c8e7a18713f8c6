//! Logs go to stderr, for a person or as JSON.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt};

use super::Global;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Human,
    Json,
}

/// The daemon logs what it does; a command says what matters itself, and logs warnings only.
pub(super) fn begin(global: &Global, daemon: bool) {
    let default = if daemon { "info,sqlx=warn,tokio_cron_scheduler=warn" } else { "warn,sqlx=error" };
    let filter = match &global.log {
        Some(filter) => EnvFilter::try_new(filter),
        None => EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(default)),
    };
    let filter = filter.unwrap_or_else(|error| {
        eprintln!("hookturn: --log: {error}; logging at {default}");
        EnvFilter::new(default)
    });
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // Everything of it is for the log alone: that one was begun already is no reason to stop.
    let begun = match (global.log_format, under_systemd()) {
        (Format::Json, _) => builder.json().flatten_event(true).try_init(),
        (Format::Human, true) => builder.without_time().try_init(),
        (Format::Human, false) => builder.try_init(),
    };
    if let Err(error) = begun {
        eprintln!("hookturn: no log: {error}");
    }
}

/// The journal puts its own time in front of each line.
fn under_systemd() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() || std::env::var_os("INVOCATION_ID").is_some()
}
