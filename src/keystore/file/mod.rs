//! The keystore as a file that the consumer reads.
//!
//! The file is replaced, never changed in place: a reader sees the old content or the new one, whole. Mount its directory
//! into a container, never the file itself, which would go on showing the old content for ever.

mod env;
mod inspect;
mod json;
mod lock;
mod owner;
mod replace;

use std::{fs::File, io, path::PathBuf, time::SystemTime};

use async_trait::async_trait;

use self::{lock::Lock, replace::Trouble};
use super::{
    Contents, Finding, Keystore, KeystoreError,
    admission::{Admission, admit, fits},
    bounded, program,
    status::{StatusReport, read_status, status_dir},
};
use crate::{
    config::{Command, Format},
    secret::Kid,
};

/// A keystore in a file. A path that is a link stands for its target, which is replaced where it lies.
///
/// - A file that is there keeps its owner, group and mode, also when root writes. A write that could not keep them, and so
///   might lock the consumer out, is refused.
/// - A new file is 0640 with the directory's group, where that is another group than ours, or the directory is setgid, and
///   the group may enter it; otherwise 0600. Written by root, it belongs to the owner of the directory.
/// - Access lists and security labels are not copied: a new file gets those that the directory gives to new files.
/// - A hidden lock file, `.NAME.lock`, stays beside it.
pub struct FileKeystore {
    file: KeystoreFile,
    reload: Option<Command>,
}

impl FileKeystore {
    /// `webhook_id` is DialNexa's id; a file that names another webhook is refused. `reload` is run after every write.
    pub fn new(path: PathBuf, format: Format, reload: Option<Command>, webhook_id: String) -> FileKeystore {
        FileKeystore { file: KeystoreFile { path, format, webhook_id }, reload }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(KeystoreFile) -> Result<T, KeystoreError> + Send + 'static,
    ) -> Result<T, KeystoreError> {
        let file = self.file.clone();
        tokio::task::spawn_blocking(move || work(file)).await.unwrap_or_else(|_| {
            let reason = "the thread that did it ended early".to_owned();
            Err(KeystoreError::Failed { place: self.place(), action: "use the file", reason })
        })
    }
}

#[async_trait]
impl Keystore for FileKeystore {
    fn slots(&self) -> Option<u8> {
        self.file.slots()
    }

    fn place(&self) -> String {
        self.file.place()
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        self.blocking(|file| file.read()).await
    }

    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        let next = next.clone();
        self.blocking(move |file| file.write(expect, &next)).await
    }

    async fn reload(&self) -> Result<(), KeystoreError> {
        let Some(command) = &self.reload else { return Ok(()) };
        let failed = |reason| Err(KeystoreError::ReloadFailed { place: self.place(), reason });
        match program::run(command, &[("HOOKTURN_WEBHOOK_ID", &self.file.webhook_id)], b"").await {
            Ok(ended) if ended.code == Some(0) => Ok(()),
            Ok(ended) => failed(ended.last_line),
            Err(error) => failed(error.to_string()),
        }
    }

    async fn status(&self) -> Option<StatusReport> {
        Some(read_status(&status_dir(&self.file.path)).await)
    }

    async fn inspect(&self) -> Vec<Finding> {
        let reload = self.reload.clone();
        let found = self.blocking(move |file| Ok(inspect::inspect(&file, reload.as_ref()))).await;
        found.unwrap_or_else(|error| vec![Finding { fatal: true, text: error.to_string() }])
    }
}

/// The file itself, used from a thread that may block.
#[derive(Clone)]
struct KeystoreFile {
    path: PathBuf,
    format: Format,
    webhook_id: String,
}

/// What a file was found to say.
struct Parsed {
    contents: Contents,
    /// What is kept of each key beside its value.
    times: Vec<(Kid, Times)>,
}

/// When a key was made and first accepted, as written. For people; acceptance does not rest on it.
#[derive(Clone, Default)]
struct Times {
    created_at: Option<String>,
    accept_from: Option<String>,
}

const MAX_BYTES: usize = 1024 * 1024;

impl KeystoreFile {
    fn slots(&self) -> Option<u8> {
        match self.format {
            Format::Json => None,
            Format::Env => Some(env::SLOTS),
        }
    }

    fn place(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        let found = self.load(&self.path)?;
        Ok(found.and_then(|(_, parsed)| parsed).map(|parsed| parsed.contents))
    }

    fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        let place = self.place();
        fits(&place, self.slots(), next)?;
        let target = replace::resolve(&self.path).map_err(|trouble| self.failed(trouble))?;
        let _lock = Lock::take(&target).map_err(|trouble| self.failed(trouble))?;
        let (old, parsed) = self.load(&target)?.unzip();
        let parsed = parsed.flatten();
        let admission = admit(&place, parsed.as_ref().map(|parsed| &parsed.contents), expect, next)?;
        let outcome = match (admission, &old) {
            // Whoever wrote it may have died before it was durable.
            (Admission::AlreadyThere, Some(file)) => replace::settle(&target, file),
            _ => {
                let bytes = self.render(next, parsed.as_ref())?;
                replace::replace(&target, old.as_ref(), &bytes)
            }
        };
        outcome.map_err(|trouble| self.failed(trouble))
    }

    /// `None`: no file. An empty file is a file without content, as a deployment may leave it.
    fn load(&self, path: &std::path::Path) -> Result<Option<(File, Option<Parsed>)>, KeystoreError> {
        let (file, bytes) = match bounded::read(path, MAX_BYTES) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(Trouble::new("read", path, &error))),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(Some((file, None)));
        }
        let parsed = match self.format {
            Format::Json => json::parse(&bytes, &self.webhook_id),
            Format::Env => env::parse(&bytes),
        };
        let parsed = parsed.map_err(|reason| KeystoreError::Unreadable { place: self.place(), reason })?;
        Ok(Some((file, Some(parsed))))
    }

    fn render(&self, next: &Contents, old: Option<&Parsed>) -> Result<zeroize::Zeroizing<Vec<u8>>, KeystoreError> {
        let rendered = match self.format {
            // The time goes into the file for people to read; nothing rests on it.
            Format::Json => json::render(next, old, &self.webhook_id, SystemTime::now().into()),
            Format::Env => env::render(next),
        };
        rendered.map_err(|reason| KeystoreError::DoesNotFit { place: self.place(), reason })
    }

    fn failed(&self, trouble: Trouble) -> KeystoreError {
        KeystoreError::Failed { place: self.place(), action: trouble.action, reason: trouble.reason }
    }
}
