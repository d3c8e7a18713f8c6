//! The real program against the sandbox, over real HTTP, with a real store.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use hookturn::sandbox::{Sandbox, SandboxOptions};
use tokio::process::{Child, Command};

/// Long enough for a loaded machine; every wait ends as soon as what it waits for is there.
pub const LONG: Duration = Duration::from_secs(60);

pub struct World {
    pub sandbox: Sandbox,
    pub config: PathBuf,
    pub dir: tempfile::TempDir,
}

impl World {
    pub async fn start(tune: impl FnOnce(&mut SandboxOptions)) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = SandboxOptions::new(dir.path().join("sandbox"));
        options.quarantine = Duration::from_secs(2);
        options.drain = Duration::from_secs(2);
        options.wait = Duration::from_millis(300);
        options.refresh = Duration::from_millis(100);
        options.repeat_min = Duration::from_millis(500);
        options.repeat_max = Duration::from_secs(3);
        options.per_second = 20.0;
        tune(&mut options);
        let sandbox = Sandbox::start(options).await.expect("a sandbox");
        let config = sandbox.write_config(dir.path()).expect("a configuration");
        World { sandbox, config, dir }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
        command.arg("-c").arg(&self.config).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// A daemon that knows the secret, and has seen it verify.
    pub async fn running(&self) -> Child {
        self.adopt().await;
        let daemon = self.daemon();
        self.ready().await;
        self.until("confirmed", LONG, |status| status["confirmed"] == true).await;
        daemon
    }

    /// A rotation, begun or joined here, to its end, with nothing lost.
    pub async fn rotates(&self, more: &[&str]) {
        let done = self.run(&[&["rotate-now", "billing", "--until", "retired", "--timeout", "90s"], more].concat()).await;
        assert_eq!(done.status.code(), Some(0), "{}\nlog:\n{}", said(&done), self.log());
        self.nothing_lost().await;
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.expect("the program runs")
    }

    /// The same, but no longer than this. `None`: it was killed.
    pub async fn run_for(&self, arguments: &[&str], limit: Duration) -> Option<Output> {
        tokio::time::timeout(limit, self.command(arguments).output()).await.ok().map(|output| output.expect("the program runs"))
    }

    pub async fn adopt(&self) {
        let file = self.sandbox.secret_file();
        let done = self.run(&["adopt", "billing", "--secret-file", &file.display().to_string()]).await;
        assert!(done.status.success(), "{}", said(&done));
    }

    /// A daemon in the background; its log goes to a file.
    pub fn daemon(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("daemon.log")).expect("a log");
        self.command(&["--log", "info", "run"]).stdout(Stdio::null()).stderr(log).spawn().expect("a daemon")
    }

    /// Waits until the daemon takes commands.
    pub async fn ready(&self) {
        let began = Instant::now();
        while tokio::net::UnixStream::connect(self.dir.path().join("admin.sock")).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the daemon never listened\nlog:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    pub async fn status(&self) -> serde_json::Value {
        let done = self.run(&["status", "billing", "--json"]).await;
        let told = serde_json::from_slice(&done.stdout).unwrap_or(serde_json::Value::Null);
        told.as_array().and_then(|all| all.first()).cloned().unwrap_or(told)
    }

    /// Waits until the status satisfies `reached`.
    pub async fn until(&self, what: &str, limit: Duration, reached: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if reached(&status) {
                return status;
            }
            assert!(began.elapsed() < limit, "{what} was not reached; status: {status:#}\nlog:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// No genuine delivery was turned away.
    pub async fn nothing_lost(&self) {
        assert!(self.sandbox.handle().settled(Duration::from_secs(10)).await, "deliveries are still under way");
        let totals = self.sandbox.handle().totals();
        assert_eq!((totals.rejected, totals.lost), (0, 0), "{totals:?}\nlog:\n{}", self.log());
    }
}

pub fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How a command ended, and some of what it said.
pub fn ends(output: &Output, exit: i32, phrases: &[&str]) {
    let told = said(output);
    assert_eq!(output.status.code(), Some(exit), "{told}");
    for phrase in phrases {
        assert!(told.contains(phrase), "{phrase:?} is not in:\n{told}");
    }
}
