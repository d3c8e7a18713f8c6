//! The status file of this replica, `<keystore path>.status/gateway-N.json`, and which N it is.
//!
//! Each gateway process of a webhook takes the first number whose lock file nobody holds. The kernel lets the lock go with the
//! process, however it ends, so the file of a process that is gone can be told from that of one that is silent, and is removed
//! by the others: it is not a replica that anybody has to wait for. (One that starts again reads the keystore first.)

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::receive::Site;
use crate::{keystore::status::status_dir, secret::Kid};

const EVERY: Duration = Duration::from_secs(1);
/// Its age says that the process lives, although nothing has changed.
const HEARTBEAT: u32 = 5;
const SIDE_BY_SIDE: usize = 32;

pub(super) struct StatusFile {
    replica: String,
    started_at: String,
    /// `None`: there is no place for one.
    place: Option<Place>,
}

struct Place {
    dir: PathBuf,
    number: usize,
    _lock: File,
}

#[derive(Serialize, PartialEq)]
struct Status {
    replica: String,
    started_at: String,
    generation: u64,
    keys: Vec<KeyStatus>,
    lost: u64,
}

#[derive(Serialize, PartialEq)]
struct KeyStatus {
    kid: Kid,
    verified: u64,
    last_verified_at: Option<String>,
}

impl StatusFile {
    /// Takes a number beside `keystore`. Without one the gateway serves all the same, and says so.
    pub async fn claim(keystore: &Path, started_at: &str) -> StatusFile {
        let dir = status_dir(keystore);
        let claimed = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || claim(dir)
        });
        let claimed = claimed.await.unwrap_or_else(|_| Err(io::Error::other("the thread that did it ended early")));
        let place = claimed
            .inspect_err(|error| {
                tracing::warn!(
                    "{}: {error}; going on without a status file (the probe can still ask this gateway)",
                    dir.display()
                );
            })
            .ok();
        let replica = match &place {
            Some(place) => name(place.number),
            None => format!("gateway-pid-{}", std::process::id()),
        };
        StatusFile { replica, started_at: started_at.to_owned(), place }
    }

    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Writes the file whenever it would say something new, until `end`; then removes it.
    pub async fn keep(self, site: Arc<Site>, end: CancellationToken) {
        let Some(place) = self.place else { return };
        let place = Arc::new(place);
        let (mut written, mut rounds): (Option<Status>, u32) = (None, 0);
        loop {
            let status = site.status(&self.replica, &self.started_at);
            // Before the keys are there it accepts nothing, and has nothing to say.
            let new = status.generation > 0 && (written.as_ref() != Some(&status) || rounds.is_multiple_of(HEARTBEAT));
            let text = new.then(|| serde_json::to_vec(&status).unwrap_or_default());
            let at = place.clone();
            let sweep = rounds.is_multiple_of(HEARTBEAT);
            let done = tokio::task::spawn_blocking(move || {
                if sweep {
                    at.sweep();
                }
                text.map_or(Ok(()), |text| at.write(&text))
            });
            match done.await {
                Ok(Ok(())) if new => written = Some(status),
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("{}: {error}", place.dir.display()),
                Err(_) => {}
            }
            rounds = rounds.wrapping_add(1);
            tokio::select! {
                () = end.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        let _ = tokio::task::spawn_blocking(move || fs::remove_file(place.file(place.number))).await;
    }
}

fn name(number: usize) -> String {
    format!("gateway-{number}")
}

fn claim(dir: PathBuf) -> io::Result<Place> {
    if !dir.is_dir() {
        fs::create_dir(&dir)?;
    }
    for number in 1..=SIDE_BY_SIDE {
        if let Some(lock) = lock(&dir, number)? {
            return Ok(Place { dir, number, _lock: lock });
        }
    }
    Err(io::Error::other(format!("{SIDE_BY_SIDE} gateways are there already")))
}

/// `None`: another process has this number.
fn lock(dir: &Path, number: usize) -> io::Result<Option<File>> {
    let path = dir.join(format!(".{}.lock", name(number)));
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

impl Place {
    fn file(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}.json", name(number)))
    }

    /// Replaces the file as a whole. Not synced: after a power cut it says nothing that counts.
    fn write(&self, text: &[u8]) -> io::Result<()> {
        let path = self.file(self.number);
        let half = path.with_file_name(format!(".{}.json", name(self.number)));
        fs::write(&half, text)?;
        fs::rename(half, path)
    }

    /// Removes the files of processes that are gone.
    fn sweep(&self) {
        for number in (1..=SIDE_BY_SIDE).filter(|number| *number != self.number) {
            let path = self.file(number);
            if path.exists()
                && let Ok(Some(_lock)) = lock(&self.dir, number)
            {
                tracing::info!("{}: its process is gone; removed", path.display());
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Site {
    fn status(&self, replica: &str, started_at: &str) -> Status {
        let keys = self.keys.load();
        let of = |kid: &Kid| {
            let (verified, last) = self.tally.accepted(*kid);
            let last = last.map(|at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true));
            KeyStatus { kid: *kid, verified, last_verified_at: last }
        };
        Status {
            replica: replica.to_owned(),
            started_at: started_at.to_owned(),
            generation: keys.generation,
            keys: keys.kids.iter().map(of).collect(),
            lost: self.tally.lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_in_order_and_the_file_of_a_process_that_is_gone_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secrets.json.status");
        let one = claim(path.clone()).expect("a number");
        let two = claim(path.clone()).expect("a number");
        assert_eq!((one.number, two.number), (1, 2));
        two.write(b"{}").expect("write");
        one.sweep();
        assert!(two.file(2).exists(), "its process lives");
        drop(two);
        one.sweep();
        assert!(!one.file(2).exists());
        assert_eq!(claim(path).expect("a number").number, 2);
    }
}
