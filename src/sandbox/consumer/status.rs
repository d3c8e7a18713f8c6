//! The status file of a replica, `<keystore path>.status/<replica>.json`: which generation it has loaded, and how many
//! deliveries it has accepted under each key.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{counts::Counts, keys::Keys};
use crate::secret::Kid;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Status {
    replica: String,
    started_at: String,
    generation: u64,
    keys: Vec<KeyStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct KeyStatus {
    kid: Kid,
    verified: u64,
    last_verified_at: Option<String>,
}

impl Status {
    /// `verified` counts what was answered 2xx: a probe that verifies and does not parse is no delivery.
    pub(super) fn new(replica: &str, started_at: DateTime<Utc>, keys: &Keys, counts: &Counts) -> Status {
        let keys_status = keys.kids().map(|kid| {
            let counts = counts.of(kid);
            KeyStatus { kid, verified: counts.accepted, last_verified_at: counts.last_accepted_at.map(rfc3339) }
        });
        Status {
            replica: replica.to_owned(),
            started_at: rfc3339(started_at),
            generation: keys.generation,
            keys: keys_status.collect(),
        }
    }
}

/// Where a replica's file is.
pub(super) fn path(keystore: &Path, replica: &str) -> PathBuf {
    let mut dir = OsString::from(keystore);
    dir.push(".status");
    PathBuf::from(dir).join(format!("{replica}.json"))
}

/// Replaces the file as a whole: a reader sees the old or the new one. Not synced: after a power cut a status says nothing.
pub(super) async fn write(path: &Path, status: &Status) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        tokio::fs::create_dir_all(dir).await?;
    }
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let half_written = path.with_file_name(hidden);
    tokio::fs::write(&half_written, serde_json::to_vec(status)?).await?;
    tokio::fs::rename(&half_written, path).await
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
