//! A file that is not what was written to it.

use std::fs;

use hookturn::store::{Anchor, AnchorState, Change, Store, StoreError};
use sqlx::{Connection, SqliteConnection};

use crate::fixtures::*;

const PAGE: usize = 4096;

/// A closed store of one webhook with enough in it to fill several pages.
async fn filled() -> InFile {
    let place = InFile::new();
    let store = place.sqlite().await;
    for seq in 1..=40 {
        let journal = (0..20).map(|_| line(1, seq)).collect();
        let change = Change { secrets: vec![secret(&format!("k_{seq}"), &[7; 100])], journal, ..with_record("billing", seq) };
        store.commit(one(change)).await.expect("commit");
    }
    store.close().await;
    place
}

#[tokio::test]
async fn a_damaged_page_is_named_with_the_way_out() {
    let place = filled().await;
    let mut bytes = fs::read(place.path()).expect("read");
    let pages = bytes.len() / PAGE;
    assert!(pages > 8, "{pages} pages");
    for page in 3..pages {
        bytes[page * PAGE..page * PAGE + 16].fill(0x5a);
    }
    fs::write(place.path(), bytes).expect("write");
    let refused = place.try_open().await.err();
    let Some(StoreError::Damaged { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("put the newest backup in its place"), "{reason}");
}

#[tokio::test]
async fn a_file_that_is_no_database_or_is_cut_off_is_damaged() {
    for content in [
        &b"not a database, but long enough to hold the hundred bytes that the header of one would take: it is text."[..],
        b"SQLite",
    ] {
        let place = InFile::new();
        fs::write(place.path(), content).expect("write");
        let refused = place.try_open().await.err();
        assert!(matches!(refused, Some(StoreError::Damaged { .. })), "{refused:?}");
        assert_eq!(fs::read(place.path()).expect("read"), content, "left as it was");
    }
    let place = filled().await;
    let bytes = fs::read(place.path()).expect("read");
    fs::write(place.path(), &bytes[..bytes.len() / 2]).expect("write");
    let refused = place.try_open().await.err();
    assert!(matches!(refused, Some(StoreError::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_a_record_is_damage_that_names_the_webhook() {
    let place = filled().await;
    let mut bytes = fs::read(place.path()).expect("read");
    let needle = br#""paused":false"#;
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("the record");
    // fbl3e: SQLite sees nothing wrong with it.
    bytes[at + 12] ^= 1;
    fs::write(place.path(), bytes).expect("write");
    let store = place.sqlite().await;
    let Err(StoreError::Damaged { reason, .. }) = store.webhook("billing").await else { panic!("it must not be read") };
    assert!(reason.contains("billing") && reason.contains("checksum"), "{reason}");
    assert!(matches!(store.webhooks().await, Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn every_column_of_a_record_is_under_its_checksum() {
    let alterations = [
        "UPDATE webhook SET seq = seq - 1",
        "UPDATE webhook SET boottime_ms = boottime_ms + 1",
        "UPDATE webhook SET boot_id = boot_id || 'x'",
        "UPDATE webhook SET record = replace(record, '\"paused\":false', '\"paused\":true')",
        "UPDATE webhook SET checksum = x'00'",
    ];
    for sql in alterations {
        let place = filled().await;
        let mut conn = SqliteConnection::connect(&format!("sqlite:{}", place.path().display())).await.expect("connect");
        sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
        conn.close().await.expect("close");
        let read = place.sqlite().await.webhook("billing").await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{sql}: {read:?}");
    }
}

/// The way a crashed store looks: the files copied while it is open.
async fn crashed(anchor: &mut Option<Anchor>) -> InFile {
    let (place, copy) = (InFile::new(), InFile::new());
    let store = place.sqlite().await;
    let anchor = anchor.insert(Anchor::at(&copy.beside(".anchor"), &store.id()));
    for seq in 1..=3 {
        store.commit(one(with_record("billing", seq))).await.expect("commit");
        anchor.advance(&[("billing", seq, 1)]).expect("advance");
    }
    for suffix in ["", "-wal"] {
        fs::copy(place.beside(suffix), copy.beside(suffix)).expect("copy");
    }
    copy
}

#[tokio::test]
async fn an_unclean_end_loses_nothing() {
    let mut anchor = None;
    let place = crashed(&mut anchor).await;
    let store = place.sqlite().await;
    assert_eq!(seq(&store, "billing").await, Some(3));
    let stored = store.webhook("billing").await.expect("read").expect("stored");
    assert!(!anchor.expect("anchor").older_than(&stored));
}

#[tokio::test]
async fn a_log_that_is_gone_or_torn_is_an_older_store_and_the_anchor_says_so() {
    for tear in [
        |wal: &mut Vec<u8>| wal.clear(),
        |wal: &mut Vec<u8>| wal.truncate(wal.len() - PAGE),
        |wal: &mut Vec<u8>| {
            let last = wal.len() - PAGE / 2;
            wal[last] ^= 0x10;
        },
    ] {
        let place = crashed(&mut None).await;
        let mut wal = fs::read(place.beside("-wal")).expect("read");
        tear(&mut wal);
        match wal.is_empty() {
            true => fs::remove_file(place.beside("-wal")).expect("remove"),
            false => fs::write(place.beside("-wal"), wal).expect("write"),
        }
        let store = place.sqlite().await;
        let AnchorState::Read(anchor) = Anchor::load(&place.beside(".anchor"), &store.id()) else { panic!("an anchor") };
        match store.webhook("billing").await.expect("read") {
            Some(stored) => {
                assert_eq!(stored.record.seq, 2, "the last whole commit");
                assert!(anchor.older_than(&stored));
            }
            None => assert_eq!(anchor.missing_from(&[]), ["billing"]),
        }
    }
}

#[tokio::test]
async fn a_new_database_at_the_place_of_a_lost_one_is_another_store_to_the_anchor() {
    let place = crashed(&mut None).await;
    for suffix in ["", "-wal"] {
        fs::remove_file(place.beside(suffix)).expect("remove");
    }
    let store = place.sqlite().await;
    let state = Anchor::load(&place.beside(".anchor"), &store.id());
    assert!(matches!(state, AnchorState::Unreadable { .. }), "{state:?}");
}
