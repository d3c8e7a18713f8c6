//! What consumer replicas say about the keystore they have loaded: `<keystore path>.status/<replica>.json`.
//!
//! ```json
//! {"replica":"web-1","started_at":"2026-05-04T09:00:00Z","generation":7,
//!  "keys":[{"kid":"k_5be2a7c90d1f4e83","verified":12,"last_verified_at":"2026-05-04T10:11:12Z"}]}
//! ```
//!
//! Consumers write these, so nothing in them is trusted to be whole, small or well-formed, and none of it stops anything.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::bounded;
use crate::secret::Kid;

/// The directory of a keystore file's status files: `secrets.json` has `secrets.json.status`.
pub fn status_dir(keystore: &Path) -> PathBuf {
    let mut path = OsString::from(keystore);
    path.push(".status");
    PathBuf::from(path)
}

/// Everything that was found in a status directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// One per replica, in the order of their names.
    pub files: Vec<StatusFile>,
    /// Files that say nothing usable, and why.
    pub problems: Vec<StatusProblem>,
}

/// What one replica says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusFile {
    pub replica: String,
    pub started_at: DateTime<Utc>,
    /// The generation that it has loaded; 0: none.
    pub generation: u64,
    pub keys: Vec<KeyStatus>,
    /// When the file was last written, by the clock of its file system.
    pub modified: SystemTime,
}

/// What one replica says about one key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyStatus {
    pub kid: Kid,
    /// How many deliveries it accepted under this key since it started.
    #[serde(default)]
    pub verified: u64,
    pub last_verified_at: Option<DateTime<Utc>>,
}

/// A status file that could not be used. The directory itself has the name `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusProblem {
    pub file: String,
    pub reason: String,
}

/// More replicas than one file system directory is a sensible meeting place for.
pub const MAX_FILES: usize = 512;
/// The cap on one status file.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// Reads every `*.json` of `dir` that is not hidden. A directory that does not exist holds nothing.
pub async fn read_status(dir: &Path) -> StatusReport {
    let dir = dir.to_owned();
    let read = tokio::task::spawn_blocking(move || read_directory(&dir)).await;
    read.unwrap_or_else(|_| problem(".", "the thread that read it ended early"))
}

fn read_directory(dir: &Path) -> StatusReport {
    let mut names = match json_files(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return StatusReport::default(),
        Err(error) => return problem(".", error.to_string()),
    };
    names.sort();
    let mut report = StatusReport::default();
    if names.len() > MAX_FILES {
        report = problem(".", format!("{} files; only the first {MAX_FILES} are read: remove old ones", names.len()));
    }
    for name in names.iter().take(MAX_FILES) {
        let file = name.to_string_lossy().into_owned();
        match read_file(&dir.join(name)) {
            // Removed between the listing and now.
            Ok(None) => {}
            Ok(Some(status)) => report.add(file, status),
            Err(reason) => report.problems.push(StatusProblem { file, reason }),
        }
    }
    report.files.sort_by(|a, b| a.replica.cmp(&b.replica));
    report
}

fn json_files(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".json") && !bytes.starts_with(b".") {
            names.push(name);
        }
    }
    Ok(names)
}

fn read_file(path: &Path) -> Result<Option<StatusFile>, String> {
    let (file, bytes) = match bounded::read(path, MAX_FILE_BYTES) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let modified = file.metadata().and_then(|found| found.modified()).map_err(|error| error.to_string())?;
    let found: Found = serde_json::from_slice(&bytes)
        .map_err(|error| format!("line {} column {}: not a status file (half written?)", error.line(), error.column()))?;
    if found.replica.is_empty() || found.replica.len() > 253 || found.replica.chars().any(char::is_control) {
        return Err("replica is not a name of 1 to 253 printable bytes".to_owned());
    }
    let Found { replica, started_at, generation, keys } = found;
    Ok(Some(StatusFile { replica, started_at, generation, keys, modified }))
}

/// What is in a file that a replica has written.
///
/// # Errors
/// What the system says, or that it is no small regular file.
pub async fn read_words(path: &Path) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || bounded::read(&path, MAX_FILE_BYTES).map(|(_, bytes)| bytes.to_vec())).await;
    read.unwrap_or_else(|_| Err(io::Error::other("the thread that read it ended early")))
}

#[derive(Deserialize)]
struct Found {
    replica: String,
    started_at: DateTime<Utc>,
    generation: u64,
    #[serde(default)]
    keys: Vec<KeyStatus>,
}

impl StatusReport {
    /// Two files of one replica would let one process speak for two: the newer one counts, and the other is a problem.
    fn add(&mut self, file: String, status: StatusFile) {
        let Some(other) = self.files.iter_mut().find(|other| other.replica == status.replica) else {
            self.files.push(status);
            return;
        };
        let reason = format!("another file speaks for replica {:?} too: the newest one counts", status.replica);
        if other.modified < status.modified {
            *other = status;
        }
        self.problems.push(StatusProblem { file, reason });
    }
}

fn problem(file: &str, reason: impl Into<String>) -> StatusReport {
    let problem = StatusProblem { file: file.to_owned(), reason: reason.into() };
    StatusReport { files: Vec::new(), problems: vec![problem] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB_1: &str = r#"{"replica":"web-1","started_at":"2026-05-04T09:00:00Z","generation":7,"pid":12,
        "keys":[{"kid":"k_a","verified":12,"last_verified_at":"2026-05-04T10:11:12Z"},{"kid":"k_b","last_verified_at":null}]}"#;

    #[tokio::test]
    async fn whole_files_are_read_and_the_others_named_with_a_reason() {
        let dir = tempfile::tempdir().expect("dir");
        for (name, text) in [
            ("web-1.json", WEB_1),
            ("web-2.json", &WEB_1[..60]),
            ("web-3.json", r#"{"replica":"web-3","started_at":"yesterday","generation":7}"#),
            ("web-4.json", r#"{"replica":"","started_at":"2026-05-04T09:00:00Z","generation":7}"#),
            ("web-5.json", &" ".repeat(MAX_FILE_BYTES + 1)),
            (".web-6.json", "half"),
            ("web-7.json.tmp", "half"),
        ] {
            fs::write(dir.path().join(name), text).expect("write");
        }
        fs::create_dir(dir.path().join("web-8.json")).expect("dir");
        let report = read_status(dir.path()).await;
        assert_eq!(report.files.len(), 1);
        let web_1 = &report.files[0];
        assert_eq!((web_1.replica.as_str(), web_1.generation, web_1.keys.len()), ("web-1", 7, 2));
        assert_eq!((web_1.keys[0].verified, web_1.keys[1].verified), (12, 0));
        assert!(web_1.keys[0].last_verified_at.is_some() && web_1.keys[1].last_verified_at.is_none());
        let named: Vec<_> = report.problems.iter().map(|problem| problem.file.as_str()).collect();
        assert_eq!(named, ["web-2.json", "web-3.json", "web-4.json", "web-5.json", "web-8.json"]);
    }

    #[tokio::test]
    async fn a_missing_directory_holds_nothing_and_two_files_of_one_replica_are_one_replica() {
        let dir = tempfile::tempdir().expect("dir");
        let status = status_dir(&dir.path().join("secrets.json"));
        assert!(status.ends_with("secrets.json.status"));
        assert_eq!(read_status(&status).await, StatusReport::default());
        fs::create_dir(&status).expect("dir");
        fs::write(status.join("a.json"), WEB_1).expect("write");
        fs::write(status.join("b.json"), WEB_1).expect("write");
        let report = read_status(&status).await;
        assert_eq!((report.files.len(), report.problems.len()), (1, 1));
    }
}
