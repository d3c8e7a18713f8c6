//! A disk without space, and one that fails.

use std::{fs, path::Path, process::Command};

use hookturn::store::{Change, Sqlite, Store, StoreError};

use crate::fixtures::*;

#[tokio::test]
async fn a_full_disk_refuses_a_commit_whole_and_takes_it_once_there_is_space() {
    let place = InFile::new();
    let _disk = match SmallDisk::mount(place.dir.path()) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let store = place.sqlite().await;
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    fill(&place.beside(".ballast"));

    let big = Change { secrets: vec![secret("k_a", &[1; 50_000])], journal: vec![line(1, 2)], ..with_record("billing", 2) };
    for _ in 0..3 {
        let refused = store.commit(one(big.clone())).await;
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
        assert_eq!(seq(&store, "billing").await, Some(1), "nothing of it");
        assert!(store.secrets("billing").await.expect("read").is_empty());
    }
    assert!(Sqlite::examine(&place.path()).iter().any(|finding| finding.fatal && finding.text.contains("free")));
    fs::remove_file(place.beside(".ballast")).expect("remove");
    store.commit(one(big)).await.expect("the same again");
    store.close().await;
    let store = place.sqlite().await;
    assert_eq!(seq(&store, "billing").await, Some(2));
    assert_eq!(store.secrets("billing").await.expect("read").len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_store_on_a_full_disk_says_so_when_it_is_opened() {
    let place = InFile::new();
    let _disk = match SmallDisk::mount(place.dir.path()) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: {reason}"),
    };
    place.sqlite().await.close().await;
    fill(&place.beside(".ballast"));
    let refused = place.try_open().await.err();
    assert!(matches!(refused, Some(StoreError::Full { .. })), "{refused:?}");
    fs::remove_file(place.beside(".ballast")).expect("remove");
    place.sqlite().await.close().await;
}

/// A tmpfs of one MiB over a directory, for as long as it lives.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(dir: &Path) -> Result<SmallDisk<'_>, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a small file system".to_owned());
        }
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(dir).output();
        let output = output.map_err(|e| format!("mount: {e}"))?;
        if output.status.success() { Ok(SmallDisk(dir)) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("create");
    while file.write_all(&[0; 4096]).is_ok() {}
}
