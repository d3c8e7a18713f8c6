//! A disk whose syncs fail, and how often it is asked to sync. The child is this test binary with `failing_sync.c` preloaded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hookturn::store::{Anchor, Change, Sqlite, Store, StoreError};

use crate::fixtures::*;

const DIR: &str = "HOOKTURN_TEST_DIR";

#[test]
fn a_commit_whose_sync_failed_is_not_there_and_the_same_again_is_taken_once_the_disk_works() {
    in_child(
        "failing_disk::a_commit_whose_sync_failed_is_not_there_and_the_same_again_is_taken_once_the_disk_works",
        |disk| async move {
            let store = disk.open().await;
            store.commit(one(with_record("billing", 1))).await.expect("commit");
            let next = || Change { secrets: vec![secret("k_a", b"sealed")], ..with_record("billing", 2) };
            disk.break_syncs();
            for _ in 0..3 {
                let refused = store.commit(one(next())).await;
                let Err(StoreError::Failed { reason, .. }) = refused else { panic!("{refused:?}") };
                assert!(reason.contains("the disk failed"), "{reason}");
                assert_eq!(seq(&store, "billing").await, Some(1));
                assert!(store.secrets("billing").await.expect("read").is_empty());
            }
            disk.mend_syncs();
            store.commit(one(next())).await.expect("the same again");
            store.commit(one(with_record("billing", 3))).await.expect("and on");
            store.close().await;
            let store = disk.open().await;
            assert_eq!(seq(&store, "billing").await, Some(3));
            assert_eq!(store.secrets("billing").await.expect("read").len(), 1);
        },
    );
}

#[test]
fn a_store_that_cannot_sync_is_not_opened() {
    in_child("failing_disk::a_store_that_cannot_sync_is_not_opened", |disk| async move {
        let store = disk.open().await;
        disk.break_syncs();
        assert!(store.commit(one(with_record("billing", 1))).await.is_err());
        store.close().await;
        drop(store);
        let refused = try_open(&disk.path()).await.err();
        assert!(matches!(refused, Some(StoreError::Failed { .. })), "{refused:?}");
        disk.mend_syncs();
        let found = seq(&disk.open().await, "billing").await;
        assert!(matches!(found, None | Some(1)), "all or nothing: {found:?}");
    });
}

#[test]
fn an_anchor_whose_sync_failed_keeps_its_marks_and_can_be_advanced_again() {
    in_child("failing_disk::an_anchor_whose_sync_failed_keeps_its_marks_and_can_be_advanced_again", |disk| async move {
        let mut anchor = Anchor::at(&disk.dir.join("anchor"), "5e3c");
        anchor.advance(&[("billing", 1, 1)]).expect("advance");
        disk.break_syncs();
        for _ in 0..3 {
            assert!(anchor.advance(&[("billing", 2, 1)]).is_err());
            assert_eq!(anchor.mark("billing").map(|mark| mark.seq), Some(1));
        }
        disk.mend_syncs();
        anchor.advance(&[("billing", 2, 1)]).expect("the same again");
        assert_eq!(anchor.mark("billing").map(|mark| mark.seq), Some(2));
    });
}

#[test]
fn a_commit_and_an_advance_cost_one_sync_each() {
    in_child("failing_disk::a_commit_and_an_advance_cost_one_sync_each", |disk| async move {
        let store = disk.open().await;
        let mut anchor = Anchor::at(&disk.dir.join("anchor"), &store.id());
        // The first of each makes the file.
        store.commit(one(with_record("billing", 1))).await.expect("commit");
        anchor.advance(&[("billing", 1, 1)]).expect("advance");
        let before = disk.syncs();
        for seq in 2..=11 {
            let changes = ["billing", "orders"].map(|name| Change { journal: vec![line(1, seq)], ..with_record(name, seq) });
            store.commit(batch(changes.into())).await.expect("commit");
            anchor.advance(&[("billing", seq, 1), ("orders", seq, 1)]).expect("advance");
        }
        assert_eq!(disk.syncs() - before, 20);
    });
}

/// What the child sees of its disk.
struct Disk {
    dir: PathBuf,
}

impl Disk {
    fn path(&self) -> PathBuf {
        self.dir.join("hookturn.db")
    }

    async fn open(&self) -> Sqlite {
        try_open(&self.path()).await.expect("open")
    }

    fn break_syncs(&self) {
        fs::write(fails(&self.dir), "").expect("write");
    }

    fn mend_syncs(&self) {
        fs::remove_file(fails(&self.dir)).expect("remove");
    }

    fn syncs(&self) -> u64 {
        fs::metadata(count(&self.dir)).expect("the preloaded library counts").len()
    }
}

fn fails(dir: &Path) -> PathBuf {
    dir.join("sync-fails")
}

fn count(dir: &Path) -> PathBuf {
    dir.join("sync-count")
}

/// Runs `test` in a child with the library preloaded; there, this function is that child.
fn in_child<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Disk) -> F) {
    if let Some(dir) = std::env::var_os(DIR) {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        return runtime.block_on(test(Disk { dir: dir.into() }));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let library = match compile(dir.path()) {
        Ok(library) => library,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let output = Command::new(std::env::current_exe().expect("exe"))
        .args([name, "--exact", "--nocapture"])
        .env(DIR, dir.path())
        .env("LD_PRELOAD", library)
        .env("SYNC_COUNT", count(dir.path()))
        .env("SYNC_FAILS", fails(dir.path()))
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(count(dir.path()).exists(), "the library was not loaded: {text}");
}

fn compile(dir: &Path) -> Result<PathBuf, String> {
    let library = dir.join("failing_sync.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/failing_sync.c");
    let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
    let output = output.map_err(|e| format!("no C compiler ({e})"))?;
    if output.status.success() { Ok(library) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
