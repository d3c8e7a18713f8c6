//! `[notify] exec`: one line of JSON on stdin of a program, on hold, overdue and completed. Never a secret.

use std::{process::Stdio, sync::Arc};

use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

use super::status::Status;
use crate::config::Notify;

#[derive(Clone)]
pub(super) struct Bell {
    pub notify: Option<Arc<Notify>>,
    pub tasks: TaskTracker,
}

impl Bell {
    /// Tells the program and goes on; how it ends is only logged.
    pub fn ring(&self, event: &'static str, status: &Status) {
        let Some(notify) = self.notify.clone() else { return };
        let line = serde_json::json!({ "event": event, "webhook": status.name, "status": status }).to_string();
        let webhook = status.name.clone();
        self.tasks.spawn(async move {
            match tokio::time::timeout(notify.timeout, tell(&notify.exec, &line)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => tracing::error!(webhook, "the notify program failed: {reason}"),
                Err(_) => tracing::error!(webhook, "the notify program did not end within {} s", notify.timeout.as_secs()),
            }
        });
    }
}

async fn tell(argv: &[String], line: &str) -> Result<(), String> {
    let (program, arguments) = argv.split_first().ok_or("it is not named")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input has still been called.
        let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}
