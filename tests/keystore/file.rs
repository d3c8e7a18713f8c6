//! What a file keystore does besides the contract: whose the file is, links, leftovers, what it will not touch.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use hookturn::{
    config::{self, Format},
    keystore::{self, FileKeystore, Keystore, KeystoreError},
};
use tempfile::TempDir;

use super::fixtures::{ID, contents, path, there, these};

fn json(path: &Path) -> FileKeystore {
    FileKeystore::new(path.to_owned(), Format::Json, None, ID.to_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_new_file_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect("write");
    assert_eq!(mode(&path(&dir)), 0o600);
    assert_eq!(names(&dir), [".secrets.json.lock", "secrets.json"]);
}

#[tokio::test]
async fn a_new_file_in_a_setgid_directory_is_for_its_group_too() {
    let dir = tempfile::tempdir().expect("a directory");
    set_mode(dir.path(), 0o2750);
    json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect("write");
    assert_eq!(mode(&path(&dir)), 0o640);
    assert_eq!(fs::metadata(path(&dir)).expect("metadata").gid(), fs::metadata(dir.path()).expect("metadata").gid());
}

#[tokio::test]
async fn a_replaced_file_keeps_its_mode() {
    let dir = tempfile::tempdir().expect("a directory");
    let keystore = json(&path(&dir));
    keystore.write(None, &contents(1, &["a"])).await.expect("write");
    set_mode(&path(&dir), 0o640);
    keystore.write(Some(1), &contents(2, &["a", "b"])).await.expect("write");
    assert_eq!(mode(&path(&dir)), 0o640);
}

#[tokio::test]
async fn what_root_writes_stays_usable_for_the_service() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    chown(dir.path(), Some(12_345), Some(23_456)).expect("chown");
    let keystore = json(&path(&dir));
    keystore.write(None, &contents(1, &["a"])).await.expect("write");
    for file in [path(&dir), dir.path().join(".secrets.json.lock")] {
        let found = fs::metadata(&file).expect("metadata");
        assert_eq!((found.uid(), found.gid()), (12_345, 23_456), "{}", file.display());
    }
    chown(path(&dir), Some(12_346), Some(23_457)).expect("chown");
    set_mode(&path(&dir), 0o440);
    keystore.write(Some(1), &contents(2, &["a"])).await.expect("write");
    let found = fs::metadata(path(&dir)).expect("metadata");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12_346, 23_457, 0o440));
}

#[tokio::test]
async fn the_target_of_a_link_is_replaced_and_the_link_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let real = dir.path().join("real");
    fs::create_dir(&real).expect("mkdir");
    fs::write(real.join("keys.json"), "").expect("an empty file");
    symlink("real/keys.json", path(&dir)).expect("link");
    json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect("write");
    assert!(path(&dir).is_symlink());
    assert!(!real.join("keys.json").is_symlink());
    assert_eq!(there(&json(&real.join("keys.json"))).await, these(1, &["a"]));
}

#[tokio::test]
async fn a_link_to_nothing_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    symlink("nowhere.json", path(&dir)).expect("link");
    let error = json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect_err("a refusal").to_string();
    assert!(error.contains("remove the link"), "{error}");
    assert!(json(&path(&dir)).inspect().await.iter().any(|finding| finding.fatal));
}

#[tokio::test]
async fn an_empty_file_is_no_content_and_is_filled() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(path(&dir), "\n").expect("write");
    set_mode(&path(&dir), 0o640);
    let keystore = json(&path(&dir));
    assert_eq!(there(&keystore).await, None);
    keystore.write(None, &contents(1, &["a"])).await.expect("write");
    assert_eq!((there(&keystore).await, mode(&path(&dir))), (these(1, &["a"]), 0o640));
}

#[tokio::test]
async fn leftovers_of_killed_writers_are_removed_and_other_files_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in [".secrets.json.aB3.new", ".other.json.aB3.new", "secrets.json.bak"] {
        fs::write(dir.path().join(name), "whsec_canary").expect("write");
    }
    json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect("write");
    assert_eq!(names(&dir), [".other.json.aB3.new", ".secrets.json.lock", "secrets.json", "secrets.json.bak"]);
}

#[tokio::test]
async fn what_is_not_a_keystore_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, expected) in [
        ("{\"version\":1,\"generation\":7,\n\"ke", "line 2"),
        (r#"{"version":2,"generation":7,"keys":[]}"#, "version 2"),
        (
            r#"{"version":1,"generation":7,"keys":[{"kid":"a","state":"current","secret":"canary"},{"kid":"a","state":"previous","secret":"canary"}]}"#,
            "twice",
        ),
        (r#"{"version":1,"generation":7,"webhook":{"id":"whk_other"},"keys":[]}"#, "another webhook"),
        ("CURRENT=canary\n", "line 1 column 1"),
    ] {
        fs::write(path(&dir), text).expect("write");
        let keystore = json(&path(&dir));
        for expect in [None, Some(7)] {
            let error = keystore.write(expect, &contents(8, &["a"])).await.expect_err("a refusal");
            assert!(matches!(error, KeystoreError::Unreadable { .. }), "{error}");
            assert!(error.to_string().contains(expected) && !error.to_string().contains("canary"), "{error}");
        }
        assert_eq!(fs::read_to_string(path(&dir)).expect("read"), text);
        let findings = keystore.inspect().await;
        assert!(findings.iter().any(|finding| finding.fatal && finding.text.contains(expected)), "{findings:?}");
    }
}

#[tokio::test]
async fn a_missing_directory_is_named_and_not_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing");
    let keystore = json(&missing.join("secrets.json"));
    assert_eq!(there(&keystore).await, None);
    let error = keystore.write(None, &contents(1, &["a"])).await.expect_err("a refusal").to_string();
    assert!(error.contains("/missing does not exist: make it"), "{error}");
    let findings = keystore.inspect().await;
    assert!(findings.iter().any(|finding| finding.fatal && finding.text.contains("does not exist")), "{findings:?}");
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_path_that_is_a_directory_or_a_pipe_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("a pipe");
    for path in [dir.path(), &pipe] {
        let error = json(path).read().await.err().expect("a refusal").to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}

#[tokio::test]
async fn a_lock_file_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let victim = dir.path().join("victim");
    symlink(&victim, dir.path().join(".secrets.json.lock")).expect("link");
    let error = json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect_err("a refusal").to_string();
    assert!(error.contains(".secrets.json.lock") && error.contains("remove it"), "{error}");
    assert!(!victim.exists());
}

#[tokio::test]
async fn a_file_made_by_hand_is_read_and_then_written_complete() {
    let dir = tempfile::tempdir().expect("a directory");
    let by_hand =
        r#"{"version":1,"generation":3,"note":"ours","keys":[{"kid":"a","state":"current","secret":"whsec_canary-a"}]}"#;
    fs::write(path(&dir), by_hand).expect("write");
    let keystore = json(&path(&dir));
    assert_eq!(there(&keystore).await, these(3, &["a"]));
    keystore.write(Some(3), &contents(4, &["a", "b"])).await.expect("write");
    let text = fs::read_to_string(path(&dir)).expect("read");
    let written: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert_eq!(written["webhook"]["id"], ID);
    assert_eq!(written["keys"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn an_env_file_is_what_a_shell_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let keystore = FileKeystore::new(path(&dir), Format::Env, None, ID.to_owned());
    keystore.write(None, &contents(1, &["a", "b"])).await.expect("write");
    let script = format!(". {}; echo $CURRENT $CURRENT_KID $PREVIOUS $PREVIOUS_KID", path(&dir).display());
    let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "whsec_canary-a a whsec_canary-b b\n");
}

#[tokio::test]
async fn the_configuration_chooses_the_back_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config::Keystore::File { path: path(&dir), format: Format::Env, reload: None };
    let built = keystore::build(&config, "billing", ID);
    assert_eq!((built.slots(), built.place()), (Some(2), format!("file {}", path(&dir).display())));
    let command = config::Command { argv: vec!["/usr/bin/keys".to_owned()], timeout: std::time::Duration::from_secs(1) };
    let built = keystore::build(&config::Keystore::Exec { command, slots: Some(5) }, "billing", ID);
    assert_eq!((built.slots(), built.place()), (Some(5), "program /usr/bin/keys".to_owned()));
}
