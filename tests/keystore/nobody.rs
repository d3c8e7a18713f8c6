//! A file keystore among the files of other users. Needs root, to make them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use hookturn::{
    config::Format,
    keystore::{FileKeystore, Keystore},
};
use tempfile::TempDir;

use super::fixtures::{ID, contents, path};
use crate::nobody::{NOBODY, as_nobody};

const SOMEBODY: u32 = 1_001;

fn json(path: &Path) -> FileKeystore {
    FileKeystore::new(path.to_owned(), Format::Json, None, ID.to_owned())
}

/// A keystore file in a directory of nobody's. `None`: the tests do not run as root.
async fn written() -> Option<TempDir> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make files of others");
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
    json(&path(&dir)).write(None, &contents(1, &["a"])).await.expect("write");
    Some(dir)
}

fn refused(path: &Path, phrases: &[&str]) {
    as_nobody(|| async {
        let refused = json(path).write(Some(1), &contents(2, &["a", "b"])).await.expect_err("refused").to_string();
        let findings = json(path).inspect().await;
        let said = format!("{refused} {}", findings.iter().map(|finding| finding.text.as_str()).collect::<String>());
        assert!(phrases.iter().all(|phrase| said.contains(phrase)), "{said}");
    });
    let content = fs::read_to_string(path).expect("the file");
    assert!(content.contains("\"generation\": 1"), "{content}");
}

#[tokio::test]
async fn the_file_of_another_user_is_left_to_them() {
    let Some(dir) = written().await else { return };
    chown(path(&dir), Some(SOMEBODY), Some(SOMEBODY)).expect("chown");
    fs::set_permissions(path(&dir), fs::Permissions::from_mode(0o644)).expect("chmod");
    refused(&path(&dir), &["it belongs to uid 1001", "cannot keep"]);
}

#[tokio::test]
async fn a_group_that_cannot_be_kept_would_lock_the_consumer_out() {
    let Some(dir) = written().await else { return };
    chown(path(&dir), Some(NOBODY), Some(SOMEBODY)).expect("chown");
    fs::set_permissions(path(&dir), fs::Permissions::from_mode(0o640)).expect("chmod");
    refused(&path(&dir), &["its group is 1001, which hookturn cannot keep"]);
}

#[tokio::test]
async fn a_directory_that_takes_no_files_is_named() {
    let Some(dir) = written().await else { return };
    fs::remove_file(dir.path().join(".secrets.json.lock")).expect("removed");
    chown(dir.path(), Some(0), Some(0)).expect("chown");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    refused(&path(&dir), &["cannot create files in", "uid 65534"]);
}

#[tokio::test]
async fn a_file_that_was_mounted_by_itself_cannot_be_replaced() {
    let Some(dir) = written().await else { return };
    let file = path(&dir);
    let mounted = Command::new("mount").arg("--bind").args([&file, &file]).output().expect("mount");
    if !mounted.status.success() {
        println!("skipped: nothing can be mounted here");
        return;
    }
    let findings = json(&file).inspect().await;
    assert!(Command::new("umount").arg(&file).status().expect("umount").success());
    assert!(findings.iter().any(|finding| finding.fatal && finding.text.contains("mount its directory instead")), "{findings:?}");
}
