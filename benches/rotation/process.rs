//! The real program: its memory at rest, and how soon it tells the status.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{counterpart::Counterpart, daemon::configuration, median};

const STATUS_ROUNDS: usize = 21;

pub struct Running {
    child: Child,
    config: PathBuf,
}

impl Running {
    pub async fn start(dir: &Path, counterpart: &Counterpart) -> Running {
        counterpart.report_to(None);
        let (config, _) = configuration(&dir.join("process"), counterpart);
        let child = hookturn(&config, &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a daemon");
        let running = Running { child, config };
        while !hookturn(&running.config, &["status"]).output().is_ok_and(|output| output.stderr.is_empty()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        running
    }

    /// Resident memory after it has come to rest.
    pub async fn idle_memory_mib(&self) -> f64 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024.0
    }

    pub fn status_time(&self) -> Duration {
        let mut times: Vec<Duration> = (0..STATUS_ROUNDS)
            .map(|_| {
                let began = Instant::now();
                let output = hookturn(&self.config, &["status"]).output().expect("a status");
                assert!(output.status.success());
                began.elapsed()
            })
            .collect();
        median(&mut times)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hookturn(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    command.arg("-c").arg(config).args(arguments);
    command
}
