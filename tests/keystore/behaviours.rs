//! The contract of `trait Keystore`, one function per behaviour.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hookturn::keystore::{Contents, KeystoreError};

use super::fixtures::{Fixture, contents, kids, there, these};

fn is_conflict(result: Result<(), KeystoreError>) -> bool {
    matches!(result, Err(KeystoreError::Conflict { .. }))
}

fn does_not_fit(result: Result<(), KeystoreError>) -> bool {
    matches!(result, Err(KeystoreError::DoesNotFit { .. }))
}

pub async fn nothing_is_there_at_first(fixture: Fixture) {
    assert_eq!(there(&*fixture.keystore).await, None);
}

pub async fn what_was_written_first_is_read_back(fixture: Fixture) {
    let written = contents(1, &["a", "b"]);
    fixture.keystore.write(None, &written).await.expect("write");
    let found = fixture.keystore.read().await.expect("read").expect("content");
    assert_eq!((found.generation, kids(&found)), (1, kids(&written)));
    for key in &written.keys {
        let back = found.keys.iter().find(|back| back.kid == key.kid).expect("the key");
        match (&back.secret, &key.secret) {
            (Some(back), Some(secret)) => assert!(back.same_as(secret), "another value came back"),
            (None, Some(_)) => assert!(!fixture.shows_values),
            _ => panic!("a key without a secret was written"),
        }
        assert!(!fixture.shows_values || back.state == key.state);
    }
}

pub async fn a_first_write_does_not_replace_what_is_there(fixture: Fixture) {
    fixture.keystore.write(None, &contents(4, &["a"])).await.expect("write");
    assert!(is_conflict(fixture.keystore.write(None, &contents(5, &["b"])).await));
    assert_eq!(there(&*fixture.keystore).await, these(4, &["a"]));
}

pub async fn a_write_that_expects_another_generation_is_refused_and_changes_nothing(fixture: Fixture) {
    fixture.keystore.write(None, &contents(4, &["a"])).await.expect("write");
    for expect in [3, 5] {
        assert!(is_conflict(fixture.keystore.write(Some(expect), &contents(6, &["a", "b"])).await), "{expect}");
    }
    assert_eq!(there(&*fixture.keystore).await, these(4, &["a"]));
}

pub async fn a_write_over_nothing_that_expects_something_is_refused(fixture: Fixture) {
    assert!(is_conflict(fixture.keystore.write(Some(3), &contents(4, &["a"])).await));
    assert_eq!(there(&*fixture.keystore).await, None);
}

pub async fn the_same_write_again_is_fine(fixture: Fixture) {
    fixture.keystore.write(None, &contents(1, &["a"])).await.expect("write");
    for _ in 0..2 {
        fixture.keystore.write(Some(1), &contents(2, &["a", "b"])).await.expect("write");
    }
    assert_eq!(there(&*fixture.keystore).await, these(2, &["a", "b"]));
}

pub async fn another_content_under_the_same_generation_needs_the_right_expectation(fixture: Fixture) {
    fixture.keystore.write(None, &contents(1, &["a"])).await.expect("write");
    fixture.keystore.write(Some(1), &contents(2, &["a"])).await.expect("write");
    assert!(is_conflict(fixture.keystore.write(Some(1), &contents(2, &["a", "b"])).await));
    assert_eq!(there(&*fixture.keystore).await, these(2, &["a"]));
    fixture.keystore.write(Some(2), &contents(2, &["a", "b"])).await.expect("put right");
    assert_eq!(there(&*fixture.keystore).await, these(2, &["a", "b"]));
}

pub async fn the_generation_rises_and_never_falls(fixture: Fixture) {
    let mut expect = None;
    for generation in [1, 2, 7, u64::from(u32::MAX) + 1] {
        fixture.keystore.write(expect, &contents(generation, &["a"])).await.expect("write");
        expect = Some(generation);
    }
    assert!(is_conflict(fixture.keystore.write(expect, &contents(7, &["a"])).await));
    assert_eq!(there(&*fixture.keystore).await, these(u64::from(u32::MAX) + 1, &["a"]));
}

pub async fn more_keys_than_slots_are_refused_and_change_nothing(fixture: Fixture) {
    fixture.keystore.write(None, &contents(1, &["a"])).await.expect("write");
    let many = ["a", "b", "c", "d", "e", "f"];
    let slots = fixture.keystore.slots().map_or(many.len(), usize::from);
    assert!(slots >= 2, "a rotation needs room for two keys");
    if slots < many.len() {
        assert!(does_not_fit(fixture.keystore.write(Some(1), &contents(2, &many)).await));
        assert_eq!(there(&*fixture.keystore).await, these(1, &["a"]));
    }
    fixture.keystore.write(Some(1), &contents(2, &many[..slots])).await.expect("as many as fit");
    assert_eq!(there(&*fixture.keystore).await, these(2, &many[..slots]));
}

pub async fn what_no_keystore_can_hold_is_refused(fixture: Fixture) {
    let mut without_value = contents(1, &["a", "b"]);
    without_value.keys[1].secret = None;
    for wrong in [contents(1, &[]), contents(1, &["a", "a"]), contents(0, &["a"]), without_value] {
        assert!(does_not_fit(fixture.keystore.write(None, &wrong).await));
    }
    assert_eq!(there(&*fixture.keystore).await, None);
}

pub async fn of_many_writers_exactly_one_wins(fixture: Fixture) {
    fixture.keystore.write(None, &contents(1, &["a"])).await.expect("write");
    for round in 1..=3u64 {
        let writers: Vec<_> = ["b", "c", "d", "e"]
            .map(|kid| {
                let keystore = Arc::clone(&fixture.keystore);
                tokio::spawn(async move { (kid, keystore.write(Some(round), &contents(round + 1, &["a", kid])).await) })
            })
            .into_iter()
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            let (kid, result) = writer.await.expect("a writer");
            match result {
                Ok(()) => winners.push(kid),
                Err(error) => assert!(matches!(error, KeystoreError::Conflict { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(there(&*fixture.keystore).await, these(round + 1, &["a", winners[0]]));
    }
}

pub async fn a_reader_sees_whole_contents_only(fixture: Fixture) {
    let written = |generation: u64| match generation % 2 {
        0 => contents(generation, &["a", "b"]),
        _ => contents(generation, &["a"]),
    };
    fixture.keystore.write(None, &written(1)).await.expect("write");
    let done = Arc::new(AtomicBool::new(false));
    let (keystore, stop) = (Arc::clone(&fixture.keystore), Arc::clone(&done));
    let reader = tokio::spawn(async move {
        let mut last = 0;
        let mut reads = 0u32;
        while !stop.load(Ordering::Relaxed) || reads == 0 {
            let found: Contents = keystore.read().await.expect("a whole content").expect("some content");
            assert!(found.generation >= last, "the generation fell from {last} to {}", found.generation);
            assert_eq!(kids(&found), kids(&written(found.generation)), "generation {}", found.generation);
            last = found.generation;
            reads += 1;
            tokio::task::yield_now().await;
        }
    });
    for generation in 2..=25 {
        fixture.keystore.write(Some(generation - 1), &written(generation)).await.expect("write");
    }
    done.store(true, Ordering::Relaxed);
    reader.await.expect("the reader");
}

pub async fn a_reload_may_be_repeated(fixture: Fixture) {
    fixture.keystore.write(None, &contents(1, &["a"])).await.expect("write");
    for _ in 0..2 {
        fixture.keystore.reload().await.expect("reload");
    }
    assert_eq!(there(&*fixture.keystore).await, these(1, &["a"]));
}

pub async fn a_healthy_keystore_has_nothing_fatal_to_say(fixture: Fixture) {
    for _ in 0..2 {
        let findings = fixture.keystore.inspect().await;
        assert!(findings.iter().all(|finding| !finding.fatal), "{findings:?}");
        // Looking changes nothing, and a keystore in use is as healthy as an empty one.
        fixture.keystore.write(None, &contents(1, &["a"])).await.expect("write");
    }
}

pub async fn no_error_and_no_place_shows_a_secret(fixture: Fixture) {
    fixture.keystore.write(None, &contents(4, &["a", "b"])).await.expect("write");
    let errors = [
        fixture.keystore.write(None, &contents(5, &["b"])).await,
        fixture.keystore.write(Some(4), &contents(3, &["b"])).await,
        fixture.keystore.write(Some(4), &contents(5, &["a", "a"])).await,
    ];
    for error in errors {
        let error = error.expect_err("a refusal");
        let said = format!("{error} {error:?} {}", fixture.keystore.place());
        assert!(!said.contains("canary"), "{said}");
        assert!(said.contains(&fixture.keystore.place()));
    }
}
