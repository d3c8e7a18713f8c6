//! One process at a time: `<database>.lock`, held with flock(2) and naming its holder.
//!
//! The kernel lets go of it when the process ends, however it ends. The file stays: removing it would let two processes
//! lock two different files of one name.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::Opening;
use crate::store::{StoreError, private_file};

pub(super) struct Lock(#[expect(dead_code, reason = "held, never read: dropping the file lets go of the lock")] File);

/// A restart overlaps with the end of the process before, and [`Lock::holder`] holds the lock for an instant.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

impl Lock {
    pub(super) async fn take(database: &Path, opening: &Opening) -> Result<Lock, StoreError> {
        let path = path(database);
        let failed = |e: std::io::Error| StoreError::Failed {
            place: super::place(database),
            action: "lock",
            reason: format!("{}: {e}", path.display()),
        };
        let mut file = private_file::open(&path).map_err(failed)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    name_holder(&mut file, opening).map_err(failed)?;
                    return Ok(Lock(file));
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(BETWEEN_TRIES).await,
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Err(StoreError::Held { place: super::place(database), holder: read_holder(&mut file) })
    }

    /// Who holds the lock of this database, if anybody.
    pub(super) fn holder(database: &Path) -> Option<String> {
        let mut file = File::open(path(database)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(read_holder(&mut file)),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }
}

fn path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn name_holder(file: &mut File, opening: &Opening) -> std::io::Result<()> {
    let since = chrono::DateTime::from_timestamp_millis(opening.at).unwrap_or_default().format("%Y-%m-%dT%H:%M:%SZ");
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}, pid {}, since {since}", opening.command, std::process::id())
}

fn read_holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.take(300).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if line.is_empty() { "another process".to_owned() } else { line }
}
