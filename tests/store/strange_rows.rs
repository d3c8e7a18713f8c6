//! Rows that hookturn never wrote, in a database that SQLite finds sound: each is damage or too new, and says which.

use hookturn::store::{Anchor, AnchorState, Change, Sqlite, Store, StoreError};
use sha2::{Digest, Sha256};
use sqlx::{Connection, SqliteConnection};

use crate::fixtures::*;

/// A closed store with one row in every table.
async fn filled() -> InFile {
    let place = InFile::new();
    let store = place.sqlite().await;
    let change = Change {
        secrets: vec![secret("k_a", b"sealed")],
        journal: vec![line(1, 1)],
        events: vec![start(1)],
        attempts: vec![attempt(1, "k_a")],
        evidence: vec![evidence("k_a", "body")],
        probes: vec![probe("probe", Some("k_a"))],
        memos: vec![("facts".to_owned(), serde_json::json!({}))],
        ..with_record("billing", 1)
    };
    store.commit(one(change)).await.expect("commit");
    store.close().await;
    place
}

async fn connect(place: &InFile) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", place.path().display())).await.expect("connect")
}

/// Puts a record there under a checksum that fits.
async fn put_record(place: &InFile, record: &str, seq: i64, boottime_ms: i64) {
    let mut sha = Sha256::new();
    for text in ["billing", record, "9f0c"] {
        sha.update((text.len() as u64).to_be_bytes());
        sha.update(text.as_bytes());
    }
    sha.update(seq.to_be_bytes());
    sha.update(boottime_ms.to_be_bytes());
    let mut conn = connect(place).await;
    let sql = "UPDATE webhook SET record = ?, seq = ?, boottime_ms = ?, boot_id = '9f0c', checksum = ?";
    let checksum = sha.finalize().to_vec();
    sqlx::query(sql).bind(record).bind(seq).bind(boottime_ms).bind(checksum).execute(&mut conn).await.expect("update");
    conn.close().await.expect("close");
}

#[tokio::test]
async fn a_record_under_a_right_checksum_is_still_looked_at() {
    let whole = serde_json::json!({"version": 1, "record": record(1)}).to_string();
    let place = filled().await;
    put_record(&place, &whole, 1, 41).await;
    assert_eq!(seq(&place.sqlite().await, "billing").await, Some(1), "this is how one is written");
    for (text, seq, boottime, expected) in [
        ("{}", 1, 41, "has no version"),
        ("no JSON", 1, 41, "has no version"),
        (r#"{"version":1}"#, 1, 41, "cannot be read (missing field `record`"),
        (&whole.replace("\"idle\"", "\"asleep\""), 1, 41, "cannot be read (unknown variant `asleep`"),
        (&whole, 2, 41, "contradicts its seq"),
        (&whole, 1, -1, "has a boot time below zero"),
    ] {
        let place = filled().await;
        put_record(&place, text, seq, boottime).await;
        let store = place.sqlite().await;
        for read in [store.webhook("billing").await.err(), store.webhooks().await.err(), store.event_log("billing").await.err()] {
            let Some(StoreError::Damaged { reason, .. }) = read else { panic!("{text}: {read:?}") };
            assert!(reason.contains("billing") && reason.contains(expected), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_record_of_a_later_hookturn_is_too_new_and_not_damaged() {
    let place = filled().await;
    put_record(&place, r#"{"version":2,"record":"of another shape"}"#, 1, 41).await;
    let read = place.sqlite().await.webhook("billing").await;
    assert!(matches!(read, Err(StoreError::TooNew { found: 2, .. })), "{read:?}");
}

#[tokio::test]
async fn whatever_is_wrong_in_another_table_is_damage_when_it_is_read() {
    for sql in [
        "UPDATE secret SET origin = 'nowhere'",
        "UPDATE secret SET kid = 'no kid'",
        "UPDATE journal SET note = '{\"sang\":1}'",
        "UPDATE journal SET note = 'no JSON'",
        "UPDATE journal SET rotation = -1",
        "UPDATE journal SET seq = -1",
        "UPDATE attempt SET kid = ''",
        "UPDATE attempt SET rotation = -1",
        "UPDATE attempt SET number = -1",
        "UPDATE evidence SET kid = 'no kid'",
        "UPDATE evidence SET detail = '{'",
        "UPDATE probe SET kid = 'no kid'",
        "UPDATE memo SET value = 'no JSON'",
        "UPDATE event SET entry = 'no JSON'",
        "UPDATE event SET number = -1",
    ] {
        let place = filled().await;
        let mut conn = connect(&place).await;
        sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
        conn.close().await.expect("close");
        let store = place.sqlite().await;
        let read = match sql.split_ascii_whitespace().nth(1).expect("a table") {
            "secret" => store.secrets("billing").await.err(),
            "journal" => store.journal("billing", None, 9).await.err(),
            "attempt" => store.attempts("billing", 9).await.err(),
            "evidence" => store.evidence("billing", 9).await.err(),
            "probe" => store.probes("billing").await.err(),
            "event" => store.event_log("billing").await.err(),
            _ => store.webhook("billing").await.err(),
        };
        let Some(StoreError::Damaged { reason, .. }) = read else { panic!("{sql}: {read:?}") };
        assert!(reason.contains("put the newest backup in its place"), "{reason}");
    }
}

#[tokio::test]
async fn an_epoch_below_zero_is_damage_and_a_missing_one_an_error() {
    for (sql, damaged) in [("UPDATE meta SET value = '-7' WHERE name = 'epoch'", true), ("DELETE FROM meta", false)] {
        let place = filled().await;
        let mut conn = connect(&place).await;
        sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
        conn.close().await.expect("close");
        let refused = place.try_open().await.err().expect("it does not open");
        assert_eq!(matches!(refused, StoreError::Damaged { .. }), damaged, "{refused}");
    }
}

/// SQLite's integers end where a `u64` has half of its way to go.
#[tokio::test]
async fn a_number_beyond_the_integers_of_the_database_is_refused_and_changes_nothing() {
    let place = filled().await;
    let store = place.sqlite().await;
    let refused = store.commit(one(with_record("billing", u64::MAX))).await.expect_err("refused");
    assert!(refused.to_string().contains("beyond SQLite's integers"), "{refused}");
    let asked = store.journal("billing", Some(u64::MAX), 9).await.expect_err("refused");
    assert!(asked.to_string().contains("beyond SQLite's integers"), "{asked}");
    assert_eq!(seq(&store, "billing").await, Some(1));
    store.commit(one(with_record("billing", 2))).await.expect("the next one");
}

#[tokio::test]
async fn a_place_where_no_store_can_be_is_named_with_what_could_not_be_done() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("write");
    std::fs::create_dir(dir.path().join("directory")).expect("dir");
    std::fs::create_dir(dir.path().join("locked.db.lock")).expect("dir");
    for (path, action) in [
        (dir.path().join("missing/missing/hookturn.db"), "make its directory"),
        (dir.path().join("file/hookturn.db"), "open its directory"),
        (dir.path().join("directory"), "open"),
        (dir.path().join(".."), "open"),
        (dir.path().join("locked.db"), "lock"),
    ] {
        let refused = try_open(&path).await.err().expect("it does not open");
        let StoreError::Failed { action: did, reason, .. } = &refused else { panic!("{}: {refused}", path.display()) };
        assert!(*did == action && !reason.is_empty(), "{}: {refused}", path.display());
    }
}

#[tokio::test]
async fn who_only_looks_sees_the_last_commit_and_changes_nothing() {
    let place = InFile::new();
    assert!(Sqlite::look(&place.path()).await.expect("nothing yet").is_none());
    std::fs::write(place.path(), "").expect("write");
    assert!(Sqlite::look(&place.path()).await.expect("nothing in it").is_none());
    let store = place.sqlite().await;
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    // Beside the one that has it open.
    let look = Sqlite::look(&place.path()).await.expect("look").expect("a store");
    assert_eq!((look.id(), look.epoch(), look.place()), (store.id(), 0, store.place()));
    assert_eq!(seq(&look, "billing").await, Some(1));
    let refused = look.commit(one(with_record("billing", 2))).await.expect_err("it only looks");
    assert!(refused.to_string().contains("the store is closed"), "{refused}");
    look.close().await;
    store.commit(one(with_record("billing", 2))).await.expect("commit");
}

#[tokio::test]
async fn who_only_looks_is_told_of_damage_too() {
    let place = InFile::new();
    std::fs::write(place.path(), "x".repeat(200)).expect("write");
    assert!(matches!(Sqlite::look(&place.path()).await, Err(StoreError::Damaged { .. })));
    let place = filled().await;
    let mut conn = connect(&place).await;
    sqlx::raw_sql("DELETE FROM meta").execute(&mut conn).await.expect("delete");
    conn.close().await.expect("close");
    assert!(Sqlite::look(&place.path()).await.is_err());
}

#[test]
fn the_same_marks_again_write_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("anchor");
    let mut anchor = Anchor::at(&path, "store");
    anchor.advance(&[("billing", 1, 1)]).expect("advance");
    std::fs::remove_file(&path).expect("remove");
    anchor.advance(&[("billing", 1, 1)]).expect("nothing to do");
    assert!(!path.exists());
    assert!(matches!(Anchor::load(&path, "store"), AnchorState::Missing));
    assert!(Sqlite::examine(&dir.path().join("nowhere/deep/hookturn.db")).iter().any(|finding| finding.fatal));
    std::fs::write(&path, "").expect("write");
    let found = Sqlite::examine(&path.join("hookturn.db"));
    assert!(found.iter().any(|finding| finding.fatal && finding.text.contains("is not a directory")), "{found:?}");
}
