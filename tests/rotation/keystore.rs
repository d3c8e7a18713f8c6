//! The keystore as it should be, and what happens when it is not.

use hookturn::rotation::{
    Current, Effect, Event, Found, Hold, KeystoreView, Note, Op, Open, Phase, Policy, Record, Verdict, Why, wake_in,
};

use crate::case::{Case, D, Q, delivery, kid, kids, policy, rotate};

/// Somebody put back what was there before.
fn taken(case: &Case) -> Found {
    Found { generation: case.record.generation - 1, kids: kids(&["x"]), ..case.found() }
}

/// The regular look finds that our content is gone.
fn look_and_lose(case: &mut Case) {
    while !matches!(case.volatile.keystore, KeystoreView::Reading { .. }) {
        case.pass(30_000);
    }
    let found = taken(case);
    case.keystore_finds(found);
}

#[test]
fn keystore_and_replicas_are_looked_at_every_thirty_seconds() {
    let mut case = Case::patch();
    case.pass(20_000);
    assert!(case.effects.is_empty(), "{:?}", case.effects);
    case.pass(10_000);
    assert!(
        matches!(case.effects[..], [Effect::ReadKeystore { .. }, Effect::AskReplicas { full: false, .. }]),
        "{:?}",
        case.effects
    );
    case.keystore_is_right();
    case.replicas_accept();
    case.pass(29_999);
    assert!(case.effects.is_empty());
    case.pass(1);
    assert_eq!(case.effects.len(), 2);
}

#[test]
fn lost_once_it_is_written_again_and_everybody_proven_again_lost_twice_it_is_contested() {
    let mut case = Case::patch();
    look_and_lose(&mut case);
    assert!(case.notes.iter().any(|note| matches!(note, Note::KeystoreLost { losses: 1, .. })));
    assert_eq!((case.phase(), case.losses()), ("patch", 1));
    assert!(case.volatile.verdicts.is_empty(), "no replica is believed any more");
    assert!(matches!(case.effects[..], [Effect::WriteKeystore { .. }]), "{:?}", case.effects);
    case.prove();
    look_and_lose(&mut case);
    assert_eq!(case.hold(), Some(Hold::KeystoreContested));
    assert!(case.effects.is_empty(), "nothing is written against somebody");
    case.op(Op::Resume);
    assert_eq!((case.phase(), case.losses()), ("patch", 0));
    assert!(matches!(case.effects[..], [Effect::WriteKeystore { .. }]), "{:?}", case.effects);
}

#[test]
fn our_own_write_that_was_overtaken_is_no_loss_but_no_replica_is_believed_any_more() {
    let mut case = Case::push();
    case.keystore_is_right();
    case.pass(5_000);
    case.replica(0, Verdict::Accepts);
    case.replica(1, Verdict::Refuses);
    case.round_ends();
    case.pass(25_000);
    let call = match case.volatile.keystore {
        KeystoreView::Reading { call, .. } => call,
        other => panic!("{other:?}"),
    };
    case.take(Event::KeystoreFailed { call });
    assert_eq!(case.volatile.keystore, KeystoreView::Unknown);
    case.pass(1_000);
    let generation = case.record.generation;
    let same_number = Found { generation, kids: kids(&["x"]), ..case.found() };
    case.keystore_finds(same_number);
    assert_eq!((case.losses(), case.record.generation), (0, generation + 1), "the number is taken by another content");
    assert!(case.volatile.verdicts.is_empty());
    assert_eq!(case.volatile.keystore, KeystoreView::Unknown);
    let older = Found { generation: 1, kids: kids(&["x"]), ..case.found() };
    case.pass(2_000);
    case.keystore_finds(older);
    assert_eq!((case.losses(), case.record.generation), (1, generation + 2), "somebody undid it in the same moment");
}

#[test]
fn a_keystore_that_cannot_be_read_is_tried_again_after_1_2_4_and_at_most_30_seconds() {
    let mut case = Case::push();
    for wait in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let call = case.keystore_call();
        case.take(Event::KeystoreFailed { call: call + 9 });
        assert_eq!(case.keystore_call(), call, "an answer to another call is dropped");
        case.take(Event::KeystoreFailed { call });
        assert_eq!((case.volatile.keystore, case.volatile.timers.keystore_retry.left), (KeystoreView::Unknown, wait));
        case.pass(wait);
    }
    case.keystore_is_right();
    assert_eq!(case.volatile.timers.keystore_retry.step, 0);
}

#[test]
fn replicas_that_do_not_accept_are_asked_again_after_1_2_4_seconds_and_only_they() {
    let mut case = Case::push();
    case.keystore_is_right();
    case.pass(5_000);
    case.replica(0, Verdict::Accepts);
    case.replica(1, Verdict::Unreachable);
    case.round_ends();
    for wait in [1_000, 2_000, 4_000] {
        assert_eq!(case.volatile.timers.ask_retry.left, wait);
        case.pass(wait);
        let whom = case.effects.iter().find_map(|effect| match effect {
            Effect::AskReplicas { whom, .. } => Some(whom.clone()),
            _ => None,
        });
        assert_eq!(whom, Some(vec![hookturn::rotation::ReplicaId(1)]));
        case.round_ends();
    }
    case.roster(&[0]);
    assert!(case.volatile.timers.ask_retry.due(), "without it there is nobody left to wait for");
    case.keystore_is_right();
    assert!(case.connecting().is_some());
}

#[test]
fn the_keystore_has_the_last_word_before_a_patch_and_before_the_end() {
    let mut push = Case::push();
    push.keystore_is_right();
    push.pass(5_000);
    push.replica(0, Verdict::Accepts);
    push.replica(1, Verdict::Accepts);
    assert!(!push.is_looking_last(), "the round is not over");
    push.round_ends();
    assert!(push.is_looking_last() && push.connecting().is_none());
    push.keystore_is_older();
    assert_eq!((push.losses(), push.connecting(), push.volatile.verdicts.len()), (1, None, 0));
    push.prove();
    assert!(push.connecting().is_some(), "it is all proven once more");

    let mut retire = Case::retire();
    retire.keystore_is_right();
    retire.pass(5_000);
    retire.both_accept();
    assert!(retire.is_looking_last());
    retire.keystore_is_older();
    assert_eq!((retire.phase(), retire.losses()), ("retire", 1));
    retire.prove();
    assert_eq!(retire.phase(), "idle");
}

#[test]
fn a_look_that_began_before_the_last_proof_is_not_the_last() {
    let mut case = Case::patch();
    case.pass(30_000);
    case.both_accept();
    case.keystore_is_right();
    assert!(!case.is_looking_last(), "nobody has said anything new");
    case.pass(30_000);
    case.roster(&[0]);
    case.roster(&[0, 1]);
    case.both_accept();
    case.keystore_is_right();
    assert!(case.is_looking_last(), "that of the replica that went and came is newer");
}

#[test]
fn a_lost_replica_is_named_and_stops_the_repetition() {
    let mut case = Case::patch();
    case.pass(30_000);
    case.keystore_is_right();
    case.replica(0, Verdict::Refuses);
    assert!(case.notes.contains(&Note::ReplicaLost { replica: hookturn::rotation::ReplicaId(0) }));
    case.replica(1, Verdict::Accepts);
    assert!(case.notes.is_empty(), "one that still accepts is not lost");
    case.round_ends();
    assert_eq!(case.volatile.timers.ask_retry.left, 1_000);
    case.see(delivery("x"));
    case.pass(5_000);
    assert_eq!(case.connecting(), None);
}

#[test]
fn an_answer_of_an_old_round_or_of_a_replica_that_is_not_there_is_dropped() {
    let mut case = Case::push();
    case.keystore_is_right();
    case.pass(5_000);
    let round = case.volatile.asking.expect("a round");
    for (round, replica) in [(round + 5, 0), (round, 7)] {
        case.take(Event::Replica { round, replica: hookturn::rotation::ReplicaId(replica), verdict: Verdict::Accepts });
        assert!(case.volatile.verdicts.is_empty());
    }
    case.take(Event::RoundEnded { round: round + 5 });
    assert_eq!(case.volatile.asking, Some(round));
}

#[test]
fn foreign_keys_are_kept_counted_as_sent_and_end_with_a_rotations_own_evidence() {
    let mut case = Case::drain();
    case.pass(30_000);
    let found = Found { generation: case.record.generation + 4, kids: kids(&["x", "y"]), strangers: kids(&["s"]), opaque: false };
    case.keystore_finds(found);
    assert_eq!(case.record.accepted, kids(&["s", "x", "y"]));
    assert_eq!(case.record.generation, 2 + 4 + 1);
    assert!(case.record.open.contains(&Open { kid: kid("s"), left: Q }));
    assert!(case.record.open.contains(&Open { kid: kid("x"), left: Q }), "a newer number: anything may have been sent");
    assert_eq!(case.phase(), "patch", "the drain's proof is in doubt");
    assert!(case.notes.contains(&Note::KeystoreStrangers { kids: kids(&["s"]) }));
}

#[test]
fn what_somebody_wrote_under_our_own_number_is_not_written_over() {
    let mut case = Case::push();
    case.keystore_finds(Found { strangers: kids(&["s"]), ..case.found() });
    assert_eq!((case.hold(), case.record.accepted.clone()), (None, kids(&["s", "x", "y"])));
    assert_eq!(case.record.open, [Open { kid: kid("s"), left: Q }], "of the others nothing new is known");

    let mut case = Case::push();
    case.keystore_finds(Found { opaque: true, ..case.found() });
    assert_eq!(case.hold(), Some(Hold::KeystoreForeign));
}

#[test]
fn a_strangers_key_in_the_retire_has_the_target_sent_once_more() {
    let mut case = Case::retire();
    case.keystore_finds(Found { strangers: kids(&["s"]), ..case.found() });
    assert_eq!((case.phase(), case.target(), case.record.current), ("patch", Some(kid("y")), Current::Known(kid("y"))));
    assert!(
        case.record.phase.rotation().is_some_and(|r| r.dropped == kids(&["x"])),
        "what was on its way out must still be forgotten"
    );
    // What has leaked would be sent again.
    assert_eq!(case.refused(Op::Compromise), Why::Compromised);
    case.op(Op::Supersede { fresh: kid("z") });
    case.op(Op::Compromise);
    assert_eq!((case.target(), case.record.current), (Some(kid("z")), Current::Known(kid("y"))));
}

#[test]
fn a_strangers_key_where_no_target_is_to_be_sent_calls_a_person() {
    for mut case in [Case::idle(), Case::abort()] {
        case.keystore_finds(Found { strangers: kids(&["s"]), ..case.found() });
        assert_eq!((case.hold(), case.record.accepted.clone()), (Some(Hold::Restored), kids(&["s", "x"])));
    }
}

#[test]
fn what_the_keystore_said_to_another_call_is_dropped() {
    for (mut case, asked) in [(Case::push(), "write"), (Case::reproving(), "read")] {
        let (before, call) = (case.volatile.clone(), case.keystore_call() - 1);
        case.take(Event::Keystore { call, found: case.found() });
        assert_eq!(case.volatile, before, "{asked}");
    }
}

#[test]
fn what_cannot_be_carried_over_calls_a_person() {
    let mut case = Case::patch();
    case.pass(30_000);
    case.keystore_finds(Found { opaque: true, ..case.found() });
    assert_eq!(case.hold(), Some(Hold::KeystoreForeign));

    let mut case = Case::with(Policy { slots: Some(2), ..policy() });
    case.op(rotate("y"));
    case.prove();
    case.pass(30_000);
    let found = Found { strangers: kids(&["s"]), ..case.found() };
    case.keystore_finds(found);
    assert_eq!(case.hold(), Some(Hold::KeystoreForeign), "three do not fit into two slots");
    assert_eq!(case.record.accepted, kids(&["x", "y"]));
}

#[test]
fn while_idle_an_older_keystore_is_read_again_when_somebody_sees_it_and_written_over() {
    let mut case = Case::retire();
    case.keystore_is_right();
    case.pass(case.policy.wait);
    case.replicas_accept();
    assert_eq!((case.phase(), case.volatile.keystore), ("idle", KeystoreView::Confirmed));
    let generation = case.record.generation;
    case.take(Event::KeystoreDoubted);
    let call = case.keystore_call();
    case.take(Event::KeystoreDoubted);
    assert_eq!(case.keystore_call(), call, "it is read, once");
    let older = Found { generation: generation - 1, ..case.found() };
    case.keystore_finds(older);
    assert_eq!((case.phase(), case.record.generation), ("idle", generation + 1));
    assert!(matches!(case.volatile.keystore, KeystoreView::Writing { .. }));
    case.keystore_is_right();
    assert_eq!((case.volatile.keystore, case.record.kept), (KeystoreView::Confirmed, generation + 1));
}

#[test]
fn in_a_rotation_a_doubt_about_the_keystore_waits_for_the_regular_look() {
    let mut case = Case::patch();
    case.take(Event::KeystoreDoubted);
    assert_eq!((case.volatile.keystore, case.effects.len()), (KeystoreView::Confirmed, 0));
}

#[test]
fn while_idle_a_newer_keystore_means_that_the_store_is_an_old_one() {
    let mut case = Case::idle();
    let found = Found { generation: 9, kids: kids(&["x"]), ..case.found() };
    case.keystore_finds(found);
    assert_eq!((case.hold(), case.record.generation), (Some(Hold::Restored), 10));
    assert!(case.record.open.contains(&Open { kid: kid("x"), left: Q }));
}

#[test]
fn what_was_beside_the_adopted_key_all_along_is_taken_along_without_a_hold() {
    let mut record = Record::unadopted(policy(), 1);
    record.seq = 1;
    let mut case = Case { policy: policy(), record, volatile: Default::default(), effects: vec![], notes: vec![] };
    case.boot();
    case.op(Op::Adopt { kid: Some(kid("x")), generation: None, replace: false });
    let found = Found { generation: 4, kids: kids(&["x"]), strangers: kids(&["s", "t"]), opaque: false };
    case.keystore_finds(found.clone());
    assert_eq!((case.hold(), case.phase()), (None, "idle"));
    assert_eq!((case.record.accepted.clone(), case.record.current), (kids(&["s", "t", "x"]), Current::Known(kid("x"))));
    case.pass(1_000);
    case.keystore_is_right();
    assert_eq!((case.record.generation, case.record.kept), (5, 5));
    case.see(delivery("x"));
    assert!(case.record.confirmed);
    // Once something of ours was there, whoever writes beside it is somebody else.
    case.boot();
    case.keystore_finds(Found { generation: 6, strangers: kids(&["u"]), ..case.found() });
    assert_eq!(case.hold(), Some(Hold::Restored));
    case.record.confirmed = false;
    case.see(delivery("x"));
    assert!(case.record.confirmed, "a hold in idle is no reason to look away");
}

#[test]
fn a_restored_store_leaps_ahead_reopens_everything_and_holds() {
    let case = Case::restored();
    assert_eq!(case.hold(), Some(Hold::Restored));
    assert_eq!(case.record.generation, 1002);
    assert_eq!(case.record.open.len(), 2);
    assert!(case.record.open.iter().all(|open| open.left == Q));
    assert!(matches!(case.volatile.keystore, KeystoreView::Reading { .. }), "it is read before it is written");
    assert!(matches!(case.record.phase.underlying(), Phase::Patch(_, patching)
        if patching.freshness == hookturn::rotation::Freshness::ForeignOpen && patching.doubt == Q && patching.sent == 1));

    for (mut case, phase) in
        [(Case::push(), "patch"), (Case::drain(), "patch"), (Case::retire(), "retire"), (Case::idle(), "idle")]
    {
        let policy = case.policy;
        case.take(Event::Boot { policy, identity: 1, restored: true, dark: 0 });
        assert_eq!(case.record.phase.underlying().name(), phase, "what may have been sent counts as sent");
        assert_eq!(case.hold(), Some(Hold::Restored));
    }
    let mut fresh = Case::idle();
    fresh.record = hookturn::rotation::Record::unadopted(policy(), 1);
    fresh.take(Event::Boot { policy: policy(), identity: 1, restored: true, dark: 0 });
    assert_eq!(fresh.phase(), "idle", "a webhook without a secret has nothing to lose");
}

#[test]
fn while_a_restored_rotation_waits_for_a_person_its_keystore_is_looked_at() {
    let mut case = Case::restored();
    case.keystore_is_right();
    assert_eq!((case.hold(), case.effects.len()), (Some(Hold::Restored), 0));
    case.pass(30_000);
    assert!(matches!(case.effects[..], [Effect::ReadKeystore { .. }]), "{:?}", case.effects);
}

#[test]
fn the_keystore_of_a_webhook_without_a_secret_is_left_alone() {
    let record = Record::unadopted(policy(), 1);
    let mut case = Case { policy: policy(), record, volatile: Default::default(), effects: vec![], notes: vec![] };
    case.boot();
    case.pass(30_000);
    assert_eq!((case.volatile.keystore, case.effects.len()), (KeystoreView::Unknown, 0));
    assert_eq!(wake_in(&case.record, &case.volatile), None);
}

#[test]
fn a_loss_in_the_hold_of_a_restore_is_not_counted() {
    let mut case = Case::restored();
    let found = Found { generation: 2, kids: kids(&["x", "y"]), ..case.found() };
    case.keystore_finds(found);
    assert_eq!((case.losses(), case.hold()), (0, Some(Hold::Restored)));
}

#[test]
fn the_proofs_before_the_retire_are_new_ones() {
    let case = Case::reproving();
    assert!(case.volatile.verdicts.is_empty());
    assert!(matches!(case.volatile.keystore, KeystoreView::Reading { .. }), "it is read, not written");
    let mut case = Case::reproving();
    case.keystore_is_right();
    case.replicas_accept();
    assert_eq!(case.phase(), "drain", "DialNexa has not said that the webhook is there");
    case.inspected(hookturn::rotation::Inspection::Active);
    assert_eq!(case.phase(), "retire");

    let mut case = Case::reproving();
    look_and_lose(&mut case);
    assert_eq!((case.phase(), case.losses()), ("drain", 1));
    case.inspected(hookturn::rotation::Inspection::Active);
    assert_eq!(case.phase(), "drain", "what was lost is written first, and proven");
}

#[test]
fn what_was_lost_before_the_last_proofs_is_still_written_not_read() {
    let mut case = Case::drain();
    look_and_lose(&mut case);
    case.pass(D);
    assert!(case.volatile.reproving);
    assert!(matches!(case.volatile.keystore, KeystoreView::Writing { .. }), "read again, it would be lost again");
}

#[test]
fn the_keystore_is_told_what_to_hold_under_a_new_number_each_time() {
    let mut case = Case::push();
    let write = |case: &Case| {
        case.effects.iter().find_map(|effect| match effect {
            Effect::WriteKeystore { generation, kids, .. } => Some((*generation, kids.clone())),
            _ => None,
        })
    };
    assert_eq!(write(&case), Some((2, kids(&["x", "y"]))));
    case.op(Op::Abort);
    assert_eq!(write(&case), Some((3, kids(&["x"]))));
    assert!(case.record.is_retired(kid("y")));
}

#[test]
fn replicas_are_asked_for_the_target_beside_a_secret_that_they_surely_accept() {
    let controls = |case: &Case| {
        case.effects.iter().find_map(|effect| match effect {
            Effect::AskReplicas { accept, control, refuse, full: true, .. } => Some((*accept, *control, refuse.len())),
            _ => None,
        })
    };
    let mut case = Case::push();
    case.keystore_is_right();
    case.pass(5_000);
    assert_eq!(controls(&case), Some((kid("y"), Some(kid("x")), 0)));
    for current in [Current::Known(kid("y")), Current::Unknown] {
        let mut case = Case::push();
        case.record.current = current;
        case.keystore_is_right();
        case.pass(5_000);
        assert_eq!(controls(&case), Some((kid("y"), None, 0)), "there is no other");
    }
}

#[test]
fn replicas_are_asked_once_the_content_was_read_back_and_had_its_time() {
    let asked = |case: &Case| case.effects.iter().any(|effect| matches!(effect, Effect::AskReplicas { .. }));
    let mut case = Case::push();
    assert!(!asked(&case), "it is being written");
    case.keystore_is_right();
    assert!(!asked(&case), "consumers have not read it");
    case.pass(4_999);
    assert!(!asked(&case));
    case.pass(1);
    assert!(asked(&case));
    case.pass(10);
    assert!(!asked(&case), "a round is under way");
    case.replicas_accept();
    case.pass(10);
    assert!(!asked(&case), "nobody is left to ask");
}
