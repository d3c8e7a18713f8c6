//! A keystore file in a place that does not fit: what `check` says before, and what a write says.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hookturn::{
    config::{Command, Format},
    keystore::{
        Contents, ExecKeystore, FileKeystore, Key, KeyState, Keystore, KeystoreError,
        status::{MAX_FILES, read_status},
    },
    secret::{Kid, Secret},
};

fn at(path: PathBuf) -> FileKeystore {
    FileKeystore::new(path, Format::Json, None, "whk_c9v3nz8rq4pm".to_owned())
}

fn contents(generation: u64) -> Contents {
    let key = Key { kid: Kid::parse("k_a").expect("kid"), state: KeyState::Current, secret: Secret::parse("whsec_a").ok() };
    Contents { generation, keys: vec![key] }
}

async fn found(keystore: &FileKeystore, fatal: bool) -> String {
    let findings = keystore.inspect().await.into_iter().filter(|finding| finding.fatal == fatal);
    findings.map(|finding| finding.text).collect::<Vec<_>>().join("\n")
}

async fn refused(keystore: &FileKeystore) -> (&'static str, String) {
    match keystore.write(None, &contents(1)).await {
        Err(KeystoreError::Failed { action, reason, .. }) => (action, reason),
        other => panic!("{:?}", other.err().map(|error| error.to_string())),
    }
}

#[tokio::test]
async fn a_path_that_names_no_file_is_refused() {
    let keystore = at(PathBuf::from("/nowhere/.."));
    assert_eq!(refused(&keystore).await, ("find", "the path does not end in a file name".to_owned()));
}

#[tokio::test]
async fn a_link_that_leads_nowhere_or_in_a_circle_is_found_by_check() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("secrets.json");
    symlink(dir.path().join("missing"), &path).expect("link");
    assert!(found(&at(path.clone()), true).await.contains("a link to a file that does not exist"));
    fs::remove_file(&path).expect("remove");
    symlink(&path, &path).expect("link");
    let (action, _) = refused(&at(path.clone())).await;
    assert_eq!(action, "find");
    assert!(!found(&at(path), true).await.is_empty());
}

#[tokio::test]
async fn check_warns_of_what_everybody_may_read_or_replace() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("secrets.json");
    let keystore = at(path.clone());
    keystore.write(None, &contents(1)).await.expect("write");
    assert_eq!((found(&keystore, true).await, found(&keystore, false).await), (String::new(), String::new()));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("mode");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("mode");
    let notes = found(&keystore, false).await;
    assert!(notes.contains("`chmod o-r` it") && notes.contains("`chmod o-w` it"), "{notes}");
    fs::write(&path, "no keystore").expect("write");
    assert!(found(&keystore, true).await.contains("not a keystore"));
}

#[tokio::test]
async fn check_finds_a_missing_directory_and_a_reload_that_cannot_run() {
    let dir = tempfile::tempdir().expect("dir");
    let fatal = found(&at(dir.path().join("missing/secrets.json")), true).await;
    assert!(fatal.contains("does not exist"), "{fatal}");
    let reload = Command { argv: vec!["/nowhere/reload".to_owned()], timeout: Duration::from_secs(1) };
    let keystore = FileKeystore::new(dir.path().join("secrets.json"), Format::Json, Some(reload), "whk_1".to_owned());
    assert!(found(&keystore, true).await.contains("is not a program that can be run"));
}

#[tokio::test]
async fn a_lock_that_cannot_be_opened_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir(dir.path().join(".secrets.json.lock")).expect("dir");
    let (action, reason) = refused(&at(dir.path().join("secrets.json"))).await;
    assert!(action == "lock" && reason.contains("remove it while no other hookturn runs"), "{reason}");
}

/// Another writer that hangs with the lock: the core is told, and tries again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_keeps_is_given_up_after_a_while() {
    let dir = tempfile::tempdir().expect("dir");
    let lock = fs::File::create(dir.path().join(".secrets.json.lock")).expect("a file");
    lock.lock().expect("the lock");
    let keystore = at(dir.path().join("secrets.json"));
    let (action, reason) = refused(&keystore).await;
    assert!(action == "lock" && reason.contains("another process holds"), "{reason}");
    lock.unlock().expect("unlock");
    keystore.write(None, &contents(1)).await.expect("then it goes through");
}

#[tokio::test]
async fn a_reload_that_does_not_start_is_told_with_the_content_in_place() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("secrets.json");
    let reload = Command { argv: vec!["/nowhere/reload".to_owned()], timeout: Duration::from_secs(1) };
    let keystore = FileKeystore::new(path.clone(), Format::Json, Some(reload), "whk_c9v3nz8rq4pm".to_owned());
    keystore.write(None, &contents(1)).await.expect("write");
    let error = keystore.reload().await.expect_err("no such program");
    assert!(matches!(error, KeystoreError::ReloadFailed { .. }) && error.to_string().contains("did not start"), "{error}");
    assert!(Path::new(&path).exists());
}

#[tokio::test]
async fn a_file_larger_than_any_keystore_is_not_read() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("secrets.json");
    fs::write(&path, " ".repeat(1024 * 1024 + 1)).expect("write");
    let error = at(path).read().await.err().expect("too large");
    assert!(error.to_string().contains("larger than 1024 KiB"), "{error}");
}

#[tokio::test]
async fn an_env_file_whose_first_line_names_no_generation_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("secrets.env");
    fs::write(&path, "# hookturn version=1 current=current\nCURRENT=whsec_a\n").expect("write");
    let keystore = FileKeystore::new(path, Format::Env, None, "whk_c9v3nz8rq4pm".to_owned());
    let error = keystore.read().await.err().expect("refused");
    assert!(error.to_string().contains("line 1: generation= is missing or 0"), "{error}");
}

#[tokio::test]
async fn a_directory_of_status_files_that_is_none_or_overfull_is_a_problem_and_no_more() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("a-file");
    fs::write(&file, "").expect("write");
    let report = read_status(&file).await;
    assert_eq!((report.files.len(), report.problems.len(), report.problems[0].file.as_str()), (0, 1, "."));

    let full = dir.path().join("full");
    fs::create_dir(&full).expect("dir");
    for number in 0..=MAX_FILES {
        fs::write(full.join(format!("{number:04}.json")), "half").expect("write");
    }
    let report = read_status(&full).await;
    assert!(report.problems[0].reason.contains("only the first 512 are read"), "{:?}", report.problems[0]);
    assert_eq!(report.problems.len(), MAX_FILES + 1);
}

#[tokio::test]
async fn of_two_files_of_one_replica_the_one_written_last_counts() {
    let dir = tempfile::tempdir().expect("dir");
    let text = |generation| format!(r#"{{"replica":"web-1","started_at":"2026-05-04T09:00:00Z","generation":{generation}}}"#);
    for (name, generation, age) in [("a.json", 7, 60), ("b.json", 8, 0)] {
        fs::write(dir.path().join(name), text(generation)).expect("write");
        let file = fs::File::options().write(true).open(dir.path().join(name)).expect("open");
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("time");
    }
    let report = read_status(dir.path()).await;
    assert_eq!(report.files.iter().map(|file| file.generation).collect::<Vec<_>>(), [8]);
    assert_eq!(report.problems.len(), 1);
}

/// A program that is named without its path is looked for where it would be started from, and a talkative one is cut short.
#[tokio::test]
async fn a_program_by_its_bare_name_is_found_and_its_last_words_are_kept() {
    let keystore = |argv: &[&str]| {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        ExecKeystore::new(Command { argv, timeout: Duration::from_secs(60) }, "billing".to_owned(), "whk_1".to_owned(), None)
    };
    let nowhere = keystore(&["hookturn-no-such-program"]).inspect().await;
    assert!(nowhere.iter().any(|finding| finding.fatal && finding.text.contains("is not a program that can be run")));
    let script = "i=0; while [ $i -lt 3000 ]; do echo 'a line of forty characters, more or less' >&2; i=$((i+1)); done; echo the end >&2; exit 7";
    let found = keystore(&["sh", "-c", script]).inspect().await;
    assert!(found.iter().any(|finding| finding.text.ends_with("exit 7: the end")), "{found:?}");
}
