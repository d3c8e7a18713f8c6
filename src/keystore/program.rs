//! Running a program of the user's: no shell, a clean environment, a deadline for it and everything it started.

use std::{path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command as Process},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{config::Command, secret::redact};

/// How a program ended.
pub(super) struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// The first 64 KiB of what it printed; whether there was more.
    pub stdout: Zeroizing<Vec<u8>>,
    pub stdout_cut: bool,
    /// The last line it printed on stderr, fit to be shown; or else how it ended.
    pub last_line: String,
}

/// Why there is no end to report.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("{program} did not start: {reason}")]
    NotStarted { program: String, reason: String },
    #[error("{program} did not end within {limit:?} and was killed")]
    TimedOut { program: String, limit: Duration },
    #[error("{program}: {reason}")]
    Lost { program: String, reason: String },
}

/// What is kept of an output. A program that prints more is not stopped by it.
const KEPT_BYTES: usize = 64 * 1024;
/// How long an output may stay open after the program ended: something that it started in the background holds it.
const LINGER: Duration = Duration::from_millis(500);
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `command` with `stdin` and an environment of PATH, HOME and `env` alone.
///
/// When the deadline passes, or the caller goes away, the whole process group is killed.
pub(super) async fn run(command: &Command, env: &[(&str, &str)], stdin: &[u8]) -> Result<Ended, ProgramError> {
    let program = command.argv.first().cloned().unwrap_or_default();
    let mut child = start(command, env).map_err(|reason| ProgramError::NotStarted { program: program.clone(), reason })?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32)).map(Group);
    let ended = timeout(command.timeout, talk(&mut child, stdin)).await;
    match ended {
        Ok(Ok(ended)) => {
            // What it left in the background may live on.
            std::mem::forget(group);
            Ok(ended)
        }
        Ok(Err(error)) => Err(ProgramError::Lost { program, reason: error.to_string() }),
        Err(_) => {
            drop(group);
            // Only reaps it: the signal is on its way.
            let _ = timeout(Duration::from_secs(1), child.wait()).await;
            Err(ProgramError::TimedOut { program, limit: command.timeout })
        }
    }
}

/// Where `program` would be found, by the same PATH that it is started with. `None`: nowhere, or not executable.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: PathBuf| {
        let runs = path.is_file() && rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
        runs.then_some(path)
    };
    if program.contains('/') {
        return executable(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path).find_map(|dir| executable(dir.join(program)))
}

/// A process group that is killed when this is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

fn start(command: &Command, env: &[(&str, &str)]) -> Result<Child, String> {
    let (program, arguments) = command.argv.split_first().ok_or("the command is empty")?;
    let mut process = Process::new(program);
    process.args(arguments).env_clear().envs(env.iter().copied());
    process.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()));
    if let Some(home) = std::env::var_os("HOME") {
        process.env("HOME", home);
    }
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.process_group(0).kill_on_drop(true);
    process.spawn().map_err(|error| error.to_string())
}

async fn talk(child: &mut Child, stdin: &[u8]) -> std::io::Result<Ended> {
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut kept = (Kept::head(), Kept::tail());
    let status = {
        let (stdout, stderr) = (&mut kept.0, &mut kept.1);
        let feed = async {
            if let Some(mut input) = input {
                // A program that does not care for its stdin closes it: no reason to fail.
                let _ = input.write_all(stdin).await;
            }
        };
        let drain = async { tokio::join!(feed, stdout.fill(output), stderr.fill(errors)) };
        tokio::pin!(drain);
        tokio::select! {
            biased;
            _ = &mut drain => child.wait().await?,
            status = child.wait() => {
                let _ = timeout(LINGER, &mut drain).await;
                status?
            }
        }
    };
    let last_line = kept.1.last_line().unwrap_or_else(|| status.to_string());
    Ok(Ended { code: status.code(), stdout_cut: kept.0.cut, stdout: kept.0.bytes, last_line })
}

/// A bounded part of an output.
struct Kept {
    bytes: Zeroizing<Vec<u8>>,
    cut: bool,
    tail: bool,
}

impl Kept {
    fn head() -> Kept {
        Kept { bytes: Zeroizing::new(Vec::new()), cut: false, tail: false }
    }

    fn tail() -> Kept {
        Kept { tail: true, ..Kept::head() }
    }

    async fn fill(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut chunk = Zeroizing::new([0u8; 4096]);
        while let Ok(read @ 1..) = from.read(&mut *chunk).await {
            self.bytes.extend_from_slice(&chunk[..read]);
            if let over @ 1.. = self.bytes.len().saturating_sub(KEPT_BYTES) {
                self.cut = true;
                if self.tail {
                    self.bytes.drain(..over);
                } else {
                    self.bytes.truncate(KEPT_BYTES);
                }
            }
        }
    }

    /// The last line that is not blank: printable, at most 300 characters, and with everything that looks like a secret
    /// blotted out, because a program in trouble may print what it was given.
    fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        let printable: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(redact(&printable, &[]).chars().take(300).collect())
    }
}
