//! A keystore behind a program, and the reload command: whatever the program does, the answer is bounded and says why.

use std::{path::Path, time::Duration};

use hookturn::{
    config::{Command, Format},
    keystore::{ExecKeystore, FileKeystore, Keystore, KeystoreError},
};

use super::fixtures::{ID, contents, path};

fn shell(script: &str, timeout: Duration) -> Command {
    Command { argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), timeout }
}

fn keystore(script: &str) -> ExecKeystore {
    within(script, Duration::from_secs(60))
}

fn within(script: &str, timeout: Duration) -> ExecKeystore {
    ExecKeystore::new(shell(script, timeout), "billing".to_owned(), ID.to_owned(), None)
}

fn reason(result: Result<impl Sized, KeystoreError>) -> String {
    match result {
        Err(KeystoreError::Failed { reason, .. } | KeystoreError::ReloadFailed { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it worked"),
    }
}

async fn vanishes(pid: &Path) {
    let pid = std::fs::read_to_string(pid).expect("a pid");
    let alive = || {
        // A killed process that nobody has reaped yet is as dead.
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while alive() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_failing_program_is_quoted_with_its_last_line_and_without_the_secret() {
    let error = keystore("echo first >&2; grep -o 'whsec_[^\"]*' >&2; exit 4").write(None, &contents(1, &["a"])).await;
    let reason = reason(error);
    assert!(reason.contains("exit 4") && reason.contains("[redacted]"), "{reason}");
    assert!(!reason.contains("canary"), "{reason}");
}

#[tokio::test]
async fn exit_9_is_a_conflict_unless_the_content_is_what_was_to_be_written() {
    let answers = |kids: &str| {
        keystore(&format!(r#"case $(cat) in *'"op":"write"'*) exit 9;; *) echo '{{"generation":7,"kids":[{kids}]}}';; esac"#))
    };
    assert!(answers(r#""a","b""#).write(Some(6), &contents(7, &["b", "a"])).await.is_ok());
    let error = answers(r#""a","x""#).write(Some(6), &contents(7, &["b", "a"])).await;
    assert!(matches!(error, Err(KeystoreError::Conflict { found, .. }) if found == "7"));
}

#[tokio::test]
async fn output_that_makes_no_sense_is_an_error_that_does_not_quote_it() {
    for script in [
        "echo 'whsec_canary'",
        r#"echo '{"generation":"canary","kids":[]}'"#,
        r#"echo '{"generation":7,"kids":["ca nary"]}'"#,
        r#"echo '{"generation":0,"kids":["canary"]}'"#,
        "head -c 1000000 /dev/zero",
        "kill -9 $$",
    ] {
        let reason = reason(keystore(script).read().await);
        assert!(!reason.contains("nary"), "{script}: {reason}");
    }
    let other = keystore(r#"cat > /dev/null; echo '{"generation":7,"kids":["x"]}'"#).write(None, &contents(7, &["a"])).await;
    assert!(reason(other).contains("something else"));
}

#[tokio::test]
async fn a_null_generation_and_no_output_are_both_nothing() {
    for script in ["true", r#"echo '{"generation":null}'"#] {
        assert!(keystore(script).read().await.is_ok_and(|found| found.is_none()), "{script}");
    }
}

#[tokio::test]
async fn the_environment_is_clean_and_names_the_webhook() {
    let names = "env | cut -d= -f1 | grep -v '^\\(PATH\\|HOME\\|PWD\\|OLDPWD\\|SHLVL\\|_\\)$' | sort | tr '\\n' ' ' >&2; exit 1";
    assert!(reason(keystore(names).read().await).ends_with(": HOOKTURN_WEBHOOK HOOKTURN_WEBHOOK_ID"));
    let values = "echo \"$HOOKTURN_WEBHOOK $HOOKTURN_WEBHOOK_ID\" >&2; exit 1";
    assert!(reason(keystore(values).read().await).ends_with(&format!(": billing {ID}")));
}

#[tokio::test]
async fn a_hanging_program_is_killed_with_everything_it_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let pid = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}.new; mv {0}.new {0}; wait", pid.display());
    let reason = reason(within(&script, Duration::from_secs(3)).read().await);
    assert!(reason.contains("did not end within 3s"), "{reason}");
    vanishes(&pid).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_the_program_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let pid = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}.new; mv {0}.new {0}; wait", pid.display());
    let call = tokio::spawn(async move { keystore(&script).read().await.is_ok() });
    while !pid.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    call.abort();
    vanishes(&pid).await;
}

#[tokio::test]
async fn a_program_that_leaves_something_in_the_background_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let pid = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo '{{\"generation\":7,\"kids\":[\"a\"]}}'", pid.display());
    let found = keystore(&script).read().await.expect("read").expect("content");
    assert_eq!(found.generation, 7);
    let pid = std::fs::read_to_string(&pid).expect("a pid");
    std::process::Command::new("kill").arg(pid.trim()).status().expect("the sleep lives on, and is ours to end");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_found_before_it_is_needed() {
    let command = Command { argv: vec!["/nonexistent/keystore".to_owned()], timeout: Duration::from_secs(1) };
    let keystore = ExecKeystore::new(command, "billing".to_owned(), ID.to_owned(), Some(1));
    let findings = keystore.inspect().await;
    assert_eq!(findings.iter().filter(|finding| finding.fatal).count(), 2, "{findings:?}");
    assert!(reason(keystore.read().await).contains("did not start"));
}

#[tokio::test]
async fn a_reload_that_fails_or_hangs_says_why_and_leaves_the_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let with = |script: &str, timeout| FileKeystore::new(path(&dir), Format::Json, Some(shell(script, timeout)), ID.to_owned());
    let failing = with("echo noise; echo 'no such service' >&2; exit 1", Duration::from_secs(60));
    failing.write(None, &contents(1, &["a"])).await.expect("write");
    assert_eq!(reason(failing.reload().await), "no such service");
    assert!(reason(with("sleep 1000", Duration::from_millis(100)).reload().await).contains("did not end within"));
    assert!(reason(with("exit 3", Duration::from_secs(60)).reload().await).contains('3'));
    let marker = dir.path().join("reloaded");
    with(&format!("touch {}", marker.display()), Duration::from_secs(60)).reload().await.expect("reload");
    assert!(marker.exists());
    assert!(failing.read().await.is_ok_and(|found| found.is_some()));
}
