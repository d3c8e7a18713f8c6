//! The whole journey of a first rotation, with the real program against the sandbox.

use std::{
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use hookturn::sandbox::{Sandbox, SandboxOptions};

use super::{commanded, hookturn, hookturn_command, stderr, stdout};

async fn sandbox(dir: &Path) -> (Sandbox, String) {
    let options = SandboxOptions {
        refresh: Duration::from_millis(50),
        per_second: 20.0,
        quarantine: Duration::from_secs(5),
        drain: Duration::from_millis(500),
        wait: Duration::from_millis(100),
        repeat_min: Duration::from_millis(300),
        repeat_max: Duration::from_secs(2),
        ..SandboxOptions::new(dir.join("sandbox"))
    };
    let sandbox = Sandbox::start(options).await.expect("a sandbox");
    let file = sandbox.write_config(&dir.join("hookturn")).expect("a configuration");
    (sandbox, file.display().to_string())
}

/// `hookturn run`, killed where a test fails.
struct Running(Child);

impl Running {
    async fn start(file: &str) -> Running {
        let child = hookturn_command(&["-c", file, "run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run");
        let running = Running(child);
        for _ in 0..400 {
            if commanded(file, &["check", "--offline"]).await.stdout.windows(17).any(|text| text == b"a daemon listens ") {
                return running;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the daemon never listened");
    }

    /// As systemd stops it.
    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        self.0.wait().expect("end").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_adopted_rotated_and_retired_first_without_a_daemon_and_then_by_one() {
    let dir = tempfile::tempdir().expect("directory");
    let (sandbox, file) = sandbox(dir.path()).await;
    let secret_file = sandbox.secret_file().display().to_string();

    let too_early = commanded(&file, &["rotate-now", "billing"]).await;
    assert_eq!(too_early.status.code(), Some(1), "{}", stdout(&too_early));
    assert!(stdout(&too_early).contains("hookturn adopt billing"), "{}", stdout(&too_early));
    let adopted = commanded(&file, &["adopt", "billing", "--secret-file", &secret_file]).await;
    assert_eq!(adopted.status.code(), Some(0), "{}", stderr(&adopted));

    let alone = commanded(&file, &["rotate-now", "billing", "--unconfirmed", "--timeout", "60s"]).await;
    let told = stdout(&alone);
    assert_eq!(alone.status.code(), Some(3), "{told}{}", stderr(&alone));
    assert!(told.contains("nothing is running to retire the old secret"), "{told}");

    let daemon = Running::start(&file).await;
    let second = commanded(&file, &["run"]).await;
    assert_eq!(second.status.code(), Some(75), "{}", stderr(&second));
    let joined = commanded(&file, &["rotate-now", "billing", "--until", "retired", "--timeout", "60s"]).await;
    let told = stdout(&joined);
    assert_eq!(joined.status.code(), Some(0), "{told}{}", stderr(&joined));

    let status = commanded(&file, &["status", "--check"]).await;
    assert_eq!(status.status.code(), Some(0), "{}", stdout(&status));
    for command in [&["explain", "billing"][..], &["history", "billing"], &["plan", "billing"], &["webhook", "show", "billing"]] {
        let output = commanded(&file, command).await;
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}{}", stdout(&output), stderr(&output));
    }
    let history = stdout(&commanded(&file, &["history", "billing"]).await);
    assert!(history.contains("is complete") && history.contains("operator uid="), "{history}");
    assert_eq!(commanded(&file, &["check"]).await.status.code(), Some(0));

    assert_eq!(daemon.terminate(), Some(0));
    let after = commanded(&file, &["status", "billing"]).await;
    assert_eq!(after.status.code(), Some(0));
    assert!(stderr(&after).contains("no daemon is running"), "{}", stderr(&after));
    sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_finds_the_webhook_at_dialnexa_and_names_a_wrong_one() {
    let dir = tempfile::tempdir().expect("directory");
    let (sandbox, _) = sandbox(dir.path()).await;
    let (base_url, api_key) = (sandbox.base_url(), dir.path().join("sandbox/api-key").display().to_string());
    let at = dir.path().join("fresh").display().to_string();
    let init = ["init", "--dir", &at, "--base-url", &base_url, "--api-key-file", &api_key, "--yes"];
    let wrong = tokio::task::block_in_place(|| hookturn(&[&init[..], &["--webhook-id", "whk_other"]].concat()));
    assert_eq!(wrong.status.code(), Some(64));
    assert!(stderr(&wrong).contains(&sandbox.webhook_id), "{}", stderr(&wrong));
    assert!(!Path::new(&at).exists(), "nothing was written");

    let output = tokio::task::block_in_place(|| hookturn(&init));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let written = std::fs::read_to_string(format!("{at}/hookturn.toml")).expect("written");
    assert!(written.contains(&format!("id = \"{}\"", sandbox.webhook_id)), "{written}");
    sandbox.shutdown().await;
}
