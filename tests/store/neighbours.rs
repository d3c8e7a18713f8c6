//! The SQLite store among other processes, other users and other programs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use hookturn::store::{Change, Sqlite, Store, StoreError};
use sqlx::{Connection, SqliteConnection};

use crate::fixtures::*;

#[tokio::test]
async fn a_second_opener_is_told_who_holds_it() {
    let place = InFile::new();
    let store = place.sqlite().await;
    let Err(StoreError::Held { holder, .. }) = place.try_open().await else { panic!("it must be held") };
    assert_eq!(holder, format!("hookturn run, pid {}, since 2026-09-21T14:13:20Z", std::process::id()));
    let findings = Sqlite::examine(&place.path());
    assert!(findings.iter().any(|finding| !finding.fatal && finding.text.contains(&holder)), "{findings:?}");
    store.close().await;
    place.sqlite().await.close().await;
    assert!(Sqlite::examine(&place.path()).iter().all(|finding| !finding.text.contains("in use")));
}

#[tokio::test]
async fn dropping_a_store_lets_the_next_one_in() {
    let place = InFile::new();
    let store = place.sqlite().await;
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    drop(store);
    assert_eq!(seq(&place.sqlite().await, "billing").await, Some(1));
}

#[tokio::test]
async fn a_missing_directory_is_made_for_its_owner_alone_and_so_are_the_files() {
    let place = InFile::new();
    let path = place.dir.path().join("new").join("hookturn.db");
    let store = try_open(&path).await.expect("open");
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    let mode = |name: &str| fs::metadata(place.dir.path().join("new").join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["hookturn.db", "hookturn.db.lock", "hookturn.db-wal", "hookturn.db-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let orphan = place.dir.path().join("no").join("such").join("hookturn.db");
    assert!(matches!(try_open(&orphan).await, Err(StoreError::Failed { .. })), "its parent must exist");
}

#[tokio::test]
async fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let place = InFile::new();
    std::os::unix::fs::chown(place.dir.path(), Some(65534), Some(65534)).expect("chown");
    let store = place.sqlite().await;
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    for suffix in ["", ".lock", "-wal", "-shm"] {
        let meta = fs::metadata(place.beside(suffix)).expect(suffix);
        assert_eq!((meta.uid(), meta.gid()), (65534, 65534), "{suffix}");
    }
}

/// What the first hookturn wrote, with its own script.
#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    let place = InFile::new();
    drop(std::fs::File::create(place.path()).expect("an empty file"));
    alter(&place, include_str!("../../src/store/sqlite/migrations/0001_first.sql")).await;
    alter(&place, "INSERT INTO journal (webhook, at, rotation, seq, actor, note) VALUES ('billing', 1, 1, 1, 'x', '\"paused\"')")
        .await;
    let store = place.sqlite().await;
    assert_eq!(store.journal("billing", None, 9).await.expect("read").len(), 1);
    store.commit(one(Change { events: vec![start(1)], ..with_record("billing", 1) })).await.expect("commit");
    assert_eq!(store.event_log("billing").await.expect("read").expect("stored").entries.len(), 1);
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let place = InFile::new();
    place.sqlite().await.close().await;
    alter(&place, "PRAGMA user_version = 9").await;
    let before = fs::read(place.path()).expect("read");
    let refused = place.try_open().await.err();
    assert!(matches!(refused, Some(StoreError::TooNew { found: 9, known: 3, .. })), "{refused:?}");
    assert_eq!(fs::read(place.path()).expect("read"), before);
    assert!(Sqlite::examine(&place.path()).iter().any(|finding| finding.fatal && finding.text.contains("newer hookturn")));
}

#[tokio::test]
async fn the_database_of_another_program_is_left_alone() {
    for theirs in ["CREATE TABLE theirs (x); PRAGMA user_version = 1", "CREATE TABLE theirs (x)", "PRAGMA application_id = 7"] {
        let place = InFile::new();
        fs::write(place.path(), "").expect("write");
        alter(&place, theirs).await;
        let before = fs::read(place.path()).expect("read");
        let refused = place.try_open().await.err();
        let Some(StoreError::Failed { reason, .. }) = refused else { panic!("{theirs}: {refused:?}") };
        assert!(reason.contains("another program"), "{reason}");
        assert_eq!(fs::read(place.path()).expect("read"), before);
    }
}

#[tokio::test]
async fn not_even_a_statement_by_hand_deletes_a_secret() {
    let place = InFile::new();
    let store = place.sqlite().await;
    store.commit(one(hookturn::store::Change { secrets: vec![secret("k_a", b"x")], ..change("billing") })).await.expect("commit");
    store.close().await;
    let mut conn = connect(&place).await;
    let refused = sqlx::query("DELETE FROM secret").execute(&mut conn).await.expect_err("a trigger");
    assert!(refused.to_string().contains("never deleted"), "{refused}");
}

#[tokio::test]
async fn a_batch_goes_through_once_another_program_lets_go_of_the_lock() {
    let place = InFile::new();
    let store = place.sqlite().await;
    let mut shell = connect(&place).await;
    let tx = shell.begin_with("BEGIN IMMEDIATE").await.expect("lock");
    let refused = store.commit(one(with_record("billing", 1))).await;
    let Err(StoreError::Failed { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("another program"), "{reason}");
    assert_eq!(seq(&store, "billing").await, None);
    tx.rollback().await.expect("unlock");
    store.commit(one(with_record("billing", 1))).await.expect("the same again");
}

/// What it reads from the log could not be moved into the database under it.
#[tokio::test]
async fn a_store_that_another_program_is_reading_is_not_begun() {
    let place = InFile::new();
    let store = place.sqlite().await;
    let mut shell = connect(&place).await;
    let mut reading = shell.begin().await.expect("a snapshot");
    let _: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook").fetch_one(&mut *reading).await.expect("read");
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    drop(store);
    let refused = place.try_open().await.err();
    let Some(StoreError::Failed { reason, .. }) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("another program is reading"), "{reason}");
    reading.rollback().await.expect("the end of it");
    assert_eq!(seq(&place.sqlite().await, "billing").await, Some(1));
}

/// Root may write everywhere, so the store is opened in a child that has dropped its rights.
#[test]
fn a_read_only_directory_is_named_with_the_way_out() {
    const PATH: &str = "HOOKTURN_TEST_READ_ONLY";
    if let Some(path) = std::env::var_os(PATH) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let refused = runtime.block_on(try_open(path.as_ref())).err().expect("refused");
        println!("refused: {refused}");
        for finding in Sqlite::examine(path.as_ref()) {
            println!("finding: {finding:?}");
        }
        return;
    }
    let place = InFile::new();
    fs::set_permissions(place.dir.path(), Permissions::from_mode(0o555)).expect("chmod");
    let mut child = std::process::Command::new(std::env::current_exe().expect("exe"));
    child.args(["neighbours::a_read_only_directory_is_named_with_the_way_out", "--exact", "--nocapture"]).env(PATH, place.path());
    if rustix::process::geteuid().is_root() {
        use std::os::unix::process::CommandExt;
        child.uid(65534).gid(65534);
    }
    let output = match child.output() {
        Ok(output) => output,
        Err(e) => return println!("skipped: another user cannot run this test ({e})"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("refused: ") && text.contains("Permission denied"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("finding: Finding { fatal: true") && text.contains("not writable"), "{text}");
}

#[test]
fn examining_names_a_missing_directory_an_open_mode_and_a_file_system_in_memory() {
    let place = InFile::new();
    let findings = |path: &std::path::Path| Sqlite::examine(path);
    let says = |path: &std::path::Path, fatal: bool, words: &str| {
        let found = findings(path);
        assert!(found.iter().any(|f| f.fatal == fatal && f.text.contains(words)), "{words}: {found:?}");
    };
    says(&place.dir.path().join("new/hookturn.db"), false, "hookturn will make it");
    says(&place.dir.path().join("no/such/hookturn.db"), true, "nor its parent");
    assert!(!findings(&place.path()).iter().any(|f| f.fatal), "{:?}", findings(&place.path()));
    assert!(!place.path().exists(), "nothing is made");
    fs::set_permissions(place.dir.path(), Permissions::from_mode(0o755)).expect("chmod");
    says(&place.path(), false, "chmod 0700");
    fs::set_permissions(place.dir.path(), Permissions::from_mode(0o777)).expect("chmod");
    says(&place.path(), true, "everybody can replace");
    if std::path::Path::new("/dev/shm").is_dir() {
        says(std::path::Path::new("/dev/shm/hookturn.db"), true, "tmpfs");
    }
}

async fn connect(place: &InFile) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", place.path().display())).await.expect("connect")
}

async fn alter(place: &InFile, sql: &'static str) {
    let mut conn = connect(place).await;
    sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
    conn.close().await.expect("close");
}
