//! `keygen`: a new sealing key.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    exit::{Code, Stop},
    out,
};
use crate::secret::SealingKey;

#[derive(Args)]
pub struct Keygen {
    /// Write it here (mode 0600, never over another file); without it, print it
    file: Option<PathBuf>,
}

impl Keygen {
    pub fn run(self) -> Result<Code, Stop> {
        let key = SealingKey::generate().map_err(|error| Stop::new(Code::Bug, error.to_string()))?;
        match &self.file {
            None => out::line(&key.encode())?,
            Some(path) => {
                write_new(path, &key)?;
                eprintln!(
                    "hookturn: {} holds a new sealing key; keep a copy apart from the store: without it nothing in the store opens",
                    path.display()
                );
            }
        }
        Ok(Code::Done)
    }
}

/// Readable by its owner alone from its first instant, and on the disk when this returns. Never replaces a file: the store
/// that an old key opens would be lost with it.
pub fn write_new(path: &Path, key: &SealingKey) -> Result<(), Stop> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.encode().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it is there already, and a sealing key is never overwritten".to_owned(),
            _ => error.to_string(),
        };
        Stop::new(Code::PersonNeeded, format!("{}: {why}", path.display()))
    })
}
