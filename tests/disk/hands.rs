//! Where things lie, and what a person does beside them.

use std::{path::PathBuf, process::Stdio};

use rustix::process::Signal;
use tokio::process::Command;

use crate::rig::{PATIENCE, Rig};

impl Rig {
    /// Where database, log and anchor lie.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The database, or what lies beside it: `-wal`, `.anchor`.
    pub fn database(&self, suffix: &str) -> PathBuf {
        self.state().join(format!("hookturn.db{suffix}"))
    }

    /// As systemd does it.
    pub async fn end(&mut self) {
        self.signal(Signal::TERM);
        let mut daemon = self.daemon.take().expect("a daemon");
        let status = tokio::time::timeout(PATIENCE, daemon.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// A command to its end: whether it succeeded, and what it said.
    pub async fn command(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
        command.arg("-c").arg(&self.config).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }
}
