//! A writer that is killed at any instant leaves a whole file. The writer is this test binary, started again.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use hookturn::{
    config::Format,
    keystore::{FileKeystore, Keystore},
};

use super::fixtures::{ID, contents, kids, path};

const TARGET: &str = "HOOKTURN_TEST_CRASH_TARGET";

fn format(path: &Path) -> Format {
    if path.extension().is_some_and(|extension| extension == "env") { Format::Env } else { Format::Json }
}

fn keystore(path: &Path) -> FileKeystore {
    FileKeystore::new(path.to_owned(), format(path), None, ID.to_owned())
}

fn kids_of(generation: u64) -> &'static [&'static str] {
    if generation.is_multiple_of(2) { &["a", "b"] } else { &["a"] }
}

/// Not a test: what the child does, until it is killed.
#[tokio::test]
#[ignore = "started by the tests below, with a target"]
async fn write_until_killed() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let keystore = keystore(Path::new(&target));
    let mut last = keystore.read().await.expect("read").map(|found| found.generation);
    loop {
        let next = last.unwrap_or(0) + 1;
        keystore.write(last, &contents(next, kids_of(next))).await.expect("write");
        last = Some(next);
    }
}

/// Not a test: one write as another user, who may not write there.
#[tokio::test]
#[ignore = "started by the tests below, with a target"]
async fn write_where_it_is_not_allowed() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let keystore = keystore(Path::new(&target));
    let findings = keystore.inspect().await;
    assert!(findings.iter().any(|finding| finding.fatal && finding.text.contains("cannot create files")), "{findings:?}");
    let error = keystore.write(None, &contents(1, &["a"])).await.expect_err("a refusal").to_string();
    assert!(error.contains("permission denied") && error.contains("create files in"), "{error}");
}

/// This binary again, running only `test`.
fn again(test: &str, target: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", &format!("keystore::crash::{test}"), "--ignored", "--nocapture"]).env(TARGET, target);
    command.stdout(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_leaves_a_whole_json_file() {
    a_killed_writer_leaves_a_whole_file("secrets.json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_leaves_a_whole_env_file() {
    a_killed_writer_leaves_a_whole_file("secrets.env").await;
}

async fn a_killed_writer_leaves_a_whole_file(name: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join(name);
    let keystore = keystore(&target);
    let mut last = 0;
    for round in 0..25u64 {
        let mut child = again("write_until_killed", &target).spawn().expect("a writer");
        wait_until_it_writes(&keystore, last, &mut child).await;
        thread::sleep(Duration::from_micros(round * 397 % 5000));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let found = keystore.read().await.expect("a whole file").expect("a file");
        assert!(found.generation > last, "round {round}");
        assert_eq!(kids(&found), kids(&contents(found.generation, kids_of(found.generation))), "round {round}");
        last = found.generation;
    }
    // The next write removes what the killed ones left, and the lock of a dead process is free.
    keystore.write(Some(last), &contents(last + 1, &["a"])).await.expect("write");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, [format!(".{name}.lock").as_str(), name]);
}

async fn wait_until_it_writes(keystore: &FileKeystore, last: u64, child: &mut Child) {
    while keystore.read().await.expect("a whole file").is_none_or(|found| found.generation <= last) {
        assert!(child.try_wait().expect("wait").is_none(), "the writer ended by itself");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_named_with_the_way_out() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let set = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
    let mut command = again("write_where_it_is_not_allowed", &path(&dir));
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere: somebody else tries, with a copy of this program that he may run.
        let copy = dir.path().join("program");
        // Not `fs::copy`: a process that another test forks meanwhile would hold it open for writing, and keep it from running.
        let copied = Command::new("cp").arg(std::env::current_exe().expect("this program")).arg(&copy).status();
        assert!(copied.is_ok_and(|status| status.success()));
        command = Command::new(&copy);
        command.args(["--exact", "keystore::crash::write_where_it_is_not_allowed", "--ignored"]).env(TARGET, path(&dir));
        command.uid(65534).gid(65534);
    }
    set(0o555);
    let output = command.stdout(Stdio::piped()).output().expect("another run");
    set(0o755);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
