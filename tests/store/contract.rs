//! What every store promises. Each function is a test of every implementation; see `every_store!`.

use hookturn::secret::Kid;
use hookturn::store::{Change, Evidence, StoreError};
use serde_json::{Value, json};

use crate::fixtures::*;

pub async fn a_committed_change_is_there_after_reopening_in_every_part(place: &impl Place) {
    let store = place.open().await;
    let full = Change {
        webhook: "billing".to_owned(),
        record: Some(record(3)),
        secrets: vec![secret("k_a", b"sealed-a"), secret("k_b", &[0, 255, 10])],
        journal: vec![line(1, 3)],
        events: vec![start(3), paused(4)],
        attempts: vec![attempt(1, "k_a")],
        evidence: vec![evidence("k_a", "body-1"), Evidence { accepted: None, ..evidence("k_a", "body-2") }],
        probes: vec![probe("probe-1", Some("k_a")), probe("probe-2", None)],
        probes_kept: None,
        memos: vec![("next-due".to_owned(), json!({"at": 5})), ("count".to_owned(), json!(1))],
    };
    store.commit(one(full.clone())).await.expect("commit");
    store.close().await;

    let store = place.open().await;
    let stored = store.webhook("billing").await.expect("read").expect("stored");
    assert_eq!(stored.record, record(3));
    assert_eq!(stored.stamp, stamp(41));
    assert_eq!(stored.memos, [("count".to_owned(), json!(1)), ("next-due".to_owned(), json!({"at": 5}))]);
    assert!(store.secrets("billing").await.expect("read") == full.secrets);
    let lines = store.journal("billing", None, 10).await.expect("read");
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].at, lines[0].rotation, lines[0].seq, &lines[0].note), (1_790_000_000_123, 1, 3, &line(1, 3).note));
    let log = store.event_log("billing").await.expect("read").expect("stored");
    let entries: Vec<_> = log.entries.iter().map(|logged| (logged.number, logged.at, logged.entry.clone())).collect();
    let written: Vec<_> = (1..).zip(&full.events).map(|(n, entry)| (n, 1_790_000_000_123, json!(entry))).collect();
    assert_eq!((log.record, entries), (record(3), written));
    assert_eq!(store.attempts("billing", 10).await.expect("read"), full.attempts);
    assert_eq!(store.evidence("billing", 10).await.expect("read"), full.evidence);
    assert_eq!(store.probes("billing").await.expect("read"), full.probes);
}

pub async fn webhooks_come_in_name_order_and_an_unknown_one_is_nothing(place: &impl Place) {
    let store = place.open().await;
    store.commit(batch(vec![with_record("orders", 1), with_record("billing", 1)])).await.expect("commit");
    let memo = Change { memos: vec![("n".to_owned(), json!(1))], ..change("billing") };
    store.commit(batch(vec![with_record("audit", 1), memo])).await.expect("commit");
    let all = store.webhooks().await.expect("read");
    assert_eq!(all.iter().map(|stored| stored.webhook.as_str()).collect::<Vec<_>>(), ["audit", "billing", "orders"]);
    assert_eq!(all.iter().map(|stored| stored.memos.len()).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(store.webhook("nobody").await.expect("read"), None);
    assert!(store.secrets("nobody").await.expect("read").is_empty());
    assert!(store.journal("nobody", None, 5).await.expect("read").is_empty());
    assert_eq!(store.event_log("nobody").await.expect("read"), None);
}

pub async fn a_batch_is_all_or_nothing(place: &impl Place) {
    let store = place.open().await;
    store.commit(batch(vec![with_record("billing", 5), with_record("orders", 5)])).await.expect("commit");
    let good = Change {
        secrets: vec![secret("k_a", b"a")],
        journal: vec![line(1, 6)],
        attempts: vec![attempt(1, "k_a")],
        evidence: vec![evidence("k_a", "b")],
        probes: vec![probe("p", None)],
        memos: vec![("m".to_owned(), json!(1))],
        ..with_record("billing", 6)
    };
    let refused = store.commit(batch(vec![good.clone(), with_record("orders", 5)])).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(seq(&*store, "billing").await, Some(5));
    assert!(store.secrets("billing").await.expect("read").is_empty());
    assert!(store.journal("billing", None, 9).await.expect("read").is_empty());
    assert!(store.attempts("billing", 9).await.expect("read").is_empty());
    assert!(store.evidence("billing", 9).await.expect("read").is_empty());
    assert!(store.probes("billing").await.expect("read").is_empty());
    assert!(store.webhook("billing").await.expect("read").expect("stored").memos.is_empty());
    store.commit(batch(vec![good, with_record("orders", 6)])).await.expect("the same, put right");
}

pub async fn a_seq_that_does_not_rise_is_a_conflict(place: &impl Place) {
    let store = place.open().await;
    store.commit(one(with_record("billing", 5))).await.expect("commit");
    for offered in [0, 4, 5] {
        let refused = store.commit(one(with_record("billing", offered))).await;
        let Err(StoreError::Conflict { webhook, offered: said, stored, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((webhook.as_str(), said, stored), ("billing", offered, 5));
    }
    let twice = store.commit(batch(vec![with_record("billing", 7), with_record("billing", 7)])).await;
    assert!(matches!(twice, Err(StoreError::Conflict { stored: 7, .. })), "{twice:?}");
    store.commit(one(with_record("billing", 900))).await.expect("a gap is fine");
}

pub async fn an_empty_batch_is_fine(place: &impl Place) {
    let store = place.open().await;
    store.commit(batch(vec![])).await.expect("no change");
    store.commit(one(change("billing"))).await.expect("an empty change");
    assert!(store.webhooks().await.expect("read").is_empty());
}

pub async fn a_secret_committed_again_is_left_and_other_bytes_for_it_are_refused(place: &impl Place) {
    let store = place.open().await;
    let with = |webhook: &str, bytes: &[u8]| one(Change { secrets: vec![secret("k_a", bytes)], ..change(webhook) });
    store.commit(with("billing", b"first")).await.expect("commit");
    store.commit(with("billing", b"first")).await.expect("the same again");
    store.commit(with("orders", b"other")).await.expect("the kid of another webhook");
    let refused = store.commit(with("billing", b"second")).await;
    let Err(StoreError::Contradiction { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("billing") && reason.contains("k_a"), "{reason}");
    let both = Change { secrets: vec![secret("k_b", b"1"), secret("k_b", b"2")], ..change("billing") };
    assert!(store.commit(one(both)).await.is_err());
    assert!(store.secrets("billing").await.expect("read") == [secret("k_a", b"first")]);
}

pub async fn secrets_outlive_everything_that_is_committed_later(place: &impl Place) {
    let store = place.open().await;
    for n in 1..=20 {
        let new = Change { secrets: vec![secret(&format!("k_{n}"), b"x")], ..with_record("billing", n) };
        store.commit(one(new)).await.expect("commit");
    }
    store.close().await;
    let kids: Vec<String> =
        place.open().await.secrets("billing").await.expect("read").iter().map(|s| s.kid.to_string()).collect();
    assert_eq!(kids, (1..=20).map(|n| format!("k_{n}")).collect::<Vec<_>>(), "all of them, oldest first");
}

pub async fn the_journal_gives_the_newest_lines_oldest_first(place: &impl Place) {
    let store = place.open().await;
    for seq in 1..=9 {
        let journal = vec![line(seq % 2, seq)];
        store
            .commit(batch(vec![Change { journal: journal.clone(), ..change("billing") }, Change { journal, ..change("orders") }]))
            .await
            .expect("commit");
    }
    let seqs = |lines: Vec<hookturn::store::JournalLine>| lines.iter().map(|line| line.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.journal("billing", None, 3).await.expect("read")), [7, 8, 9]);
    assert_eq!(seqs(store.journal("billing", Some(0), 3).await.expect("read")), [4, 6, 8]);
    assert_eq!(seqs(store.journal("billing", None, u32::MAX).await.expect("read")).len(), 9);
    assert!(store.journal("billing", None, 0).await.expect("read").is_empty());
    assert!(store.journal("billing", Some(77), 5).await.expect("read").is_empty());
}

/// What is cut off ends where the rest can start from, and no number comes twice.
pub async fn the_event_log_keeps_the_newest_entries_from_a_start_on(place: &impl Place) {
    let store = place.open().await;
    store.commit(one(with_record("orders", 1))).await.expect("commit");
    let segment = || [vec![start(1)], vec![paused(1); 1_000]].concat();
    for _ in 0..7 {
        store.commit(one(Change { events: segment(), ..change("billing") })).await.expect("commit");
    }
    store.commit(one(Change { events: vec![start(1), paused(1)], ..with_record("billing", 1) })).await.expect("commit");
    let log = store.event_log("billing").await.expect("read").expect("stored");
    let numbers: Vec<u64> = log.entries.iter().map(|logged| logged.number).collect();
    // The start at 7008 lets go of what is 5000 and more before it, back to the next start: that at 2003.
    assert_eq!((numbers.first(), numbers.last(), numbers.len()), (Some(&2_003), Some(&7_009), 5_007));
    assert_eq!(log.entries[0].entry, json!(start(1)));
    assert_eq!(store.event_log("orders").await.expect("read").expect("stored").entries, []);
}

pub async fn an_attempt_is_filled_in_and_never_emptied(place: &impl Place) {
    let store = place.open().await;
    let with = |attempts| one(Change { attempts, ..change("billing") });
    store.commit(with(vec![attempt(2, "k_a"), attempt(1, "k_a"), attempt(3, "k_b")])).await.expect("intents");
    let ended = hookturn::store::Attempt { ended_at: Some(8), outcome: Some("200 in 41 ms".to_owned()), ..attempt(1, "k_a") };
    store.commit(with(vec![ended.clone()])).await.expect("the outcome");
    store.commit(with(vec![attempt(1, "k_a")])).await.expect("the intent again");
    assert_eq!(store.attempts("billing", 9).await.expect("read"), [ended, attempt(2, "k_a"), attempt(3, "k_b")]);
    assert_eq!(store.attempts("billing", 1).await.expect("read"), [attempt(3, "k_b")]);
}

pub async fn an_attempt_keeps_its_secret(place: &impl Place) {
    let store = place.open().await;
    let with = |kid| one(Change { attempts: vec![attempt(1, kid)], ..change("billing") });
    store.commit(with("k_a")).await.expect("commit");
    assert!(matches!(store.commit(with("k_b")).await, Err(StoreError::Contradiction { .. })));
    assert_eq!(store.attempts("billing", 9).await.expect("read"), [attempt(1, "k_a")]);
}

pub async fn evidence_counts_a_body_once_per_secret(place: &impl Place) {
    let store = place.open().await;
    let with = |evidence| one(Change { evidence, ..change("billing") });
    store.commit(with(vec![evidence("k_a", "1"), evidence("k_a", "1"), evidence("k_b", "1")])).await.expect("commit");
    let later = Evidence { at: 77, door: "tap".to_owned(), ..evidence("k_a", "1") };
    store.commit(with(vec![later, evidence("k_a", "2")])).await.expect("commit");
    let all = [evidence("k_a", "1"), evidence("k_b", "1"), evidence("k_a", "2")];
    assert_eq!(store.evidence("billing", 9).await.expect("read"), all);
    assert_eq!(store.evidence("billing", 2).await.expect("read"), all[1..]);
}

pub async fn probes_under_keys_that_are_gone_are_forgotten(place: &impl Place) {
    let store = place.open().await;
    let with = |webhook: &str, probes| Change { probes, ..change(webhook) };
    let all = vec![probe("1", None), probe("1", Some("k_gone")), probe("2", Some("k_a"))];
    for webhook in ["billing", "other"] {
        store.commit(one(with(webhook, all.clone()))).await.expect("stored");
    }
    let kept = Some([Kid::parse("k_a").expect("kid")].into_iter().collect());
    let forgetful = Change { probes_kept: kept, ..with("billing", vec![probe("3", Some("k_a")), probe("4", Some("k_gone"))]) };
    store.commit(one(forgetful)).await.expect("stored");
    assert_eq!(store.probes("billing").await.expect("read"), [probe("2", Some("k_a")), probe("3", Some("k_a"))]);
    assert_eq!(store.probes("other").await.expect("read"), all);
}

pub async fn a_probe_is_noted_once_per_replica_and_secret(place: &impl Place) {
    let store = place.open().await;
    let with = |probes| one(Change { probes, ..change("billing") });
    let all = [probe("1", None), probe("1", Some("k_a")), probe("2", None)];
    store.commit(with(all.to_vec())).await.expect("commit");
    store.commit(with(all.to_vec())).await.expect("the same again");
    assert_eq!(store.probes("billing").await.expect("read"), all);
}

pub async fn memos_are_replaced_and_null_deletes(place: &impl Place) {
    let store = place.open().await;
    let with = |memos: &[(&str, Value)]| {
        let memos = memos.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        one(Change { memos, ..change("billing") })
    };
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    store.commit(with(&[("a", json!(1)), ("b", json!([1, 2])), ("c", json!("x"))])).await.expect("commit");
    store.commit(with(&[("a", json!({"n": 2})), ("b", Value::Null), ("never", Value::Null)])).await.expect("commit");
    let memos = store.webhook("billing").await.expect("read").expect("stored").memos;
    assert_eq!(memos, [("a".to_owned(), json!({"n": 2})), ("c".to_owned(), json!("x"))]);
}

pub async fn the_stamp_is_that_of_the_record(place: &impl Place) {
    let store = place.open().await;
    store.commit(one(with_record("billing", 1))).await.expect("commit");
    let mut later = one(Change { memos: vec![("a".to_owned(), json!(1))], ..change("billing") });
    later.stamp = stamp(99);
    store.commit(later.clone()).await.expect("no record in it");
    assert_eq!(store.webhook("billing").await.expect("read").expect("stored").stamp, stamp(41));
    later.changes = vec![with_record("billing", 2)];
    store.commit(later).await.expect("commit");
    assert_eq!(store.webhook("billing").await.expect("read").expect("stored").stamp, stamp(99));
}

pub async fn every_opening_has_a_greater_epoch_and_the_same_id(place: &impl Place) {
    let mut before = (0, None);
    for _ in 0..3 {
        let store = place.open().await;
        assert!(store.epoch() > before.0);
        assert_eq!(before.1.unwrap_or_else(|| store.id()), store.id());
        before = (store.epoch(), Some(store.id()));
        store.close().await;
    }
}

pub async fn an_older_opening_is_fenced_off(place: &impl Place) {
    let older = place.open().await;
    older.commit(one(with_record("billing", 1))).await.expect("commit");
    let newer = place.take_over().await;
    let refused = older.commit(one(with_record("billing", 2))).await;
    let Err(StoreError::Fenced { found, ours, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((found, ours), (newer.epoch(), older.epoch()));
    newer.commit(one(with_record("billing", 2))).await.expect("the newer one goes on");
    assert!(matches!(older.commit(batch(vec![])).await, Err(StoreError::Fenced { .. })), "and for ever");
}

pub async fn a_closed_store_takes_nothing(place: &impl Place) {
    let store = place.open().await;
    store.close().await;
    let refused = store.commit(one(with_record("billing", 1))).await;
    assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
    store.close().await;
    assert!(place.open().await.webhooks().await.expect("read").is_empty());
}

pub async fn a_commit_given_up_half_way_is_whole_or_nothing_and_the_next_one_goes_through(place: &impl Place) {
    let store = place.open().await;
    for n in 0..25 {
        let name = format!("k_{n}");
        let given_up = Change {
            secrets: vec![secret(&name, b"x")],
            journal: vec![line(1, n)],
            attempts: vec![attempt(n, &name)],
            ..with_record("billing", 2 * n + 1)
        };
        tokio::select! {
            biased;
            _ = store.commit(one(given_up)) => {}
            () = tokio::time::sleep(std::time::Duration::from_micros(40 * n)) => {}
        }
        store.commit(one(with_record("billing", 2 * n + 2))).await.expect("the next one");
        let secrets = store.secrets("billing").await.expect("read").len();
        assert_eq!(secrets, store.journal("billing", None, 99).await.expect("read").len());
        assert_eq!(secrets, store.attempts("billing", 99).await.expect("read").len());
    }
}
