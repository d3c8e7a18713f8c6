//! A store that is older than what was done: everything is kept, and a person says how it goes on.

use hookturn::rotation::{
    Cause, Current, Effect, Event, Found, Hold, KeystoreView, KidSet, Op, Open, Overfull, Policy, Seen, Why,
};

use crate::case::{Case, Q, delivery, kid, kids, policy, rotate};

/// Two slots hold y and z, both from after the backup, in which x is current.
fn overfull(op: fn(&mut Case)) -> Case {
    let mut case = Case::with(Policy { slots: Some(2), ..policy() });
    op(&mut case);
    let policy = case.policy;
    case.take(Event::Boot { policy, identity: 1, restored: true, dark: 0 });
    case.roster(&[0, 1]);
    case.keystore_finds(Found { generation: 7, kids: KidSet::new(), strangers: kids(&["y", "z"]), opaque: false });
    case
}

#[test]
fn a_restored_record_beside_a_full_keystore_keeps_all_and_writes_nothing() {
    let mut case = overfull(|_| ());
    assert_eq!((case.hold(), case.record.accepted.clone()), (Some(Hold::Restored), kids(&["x", "y", "z"])));
    let there = kids(&["y", "z"]);
    assert_eq!(case.volatile.overfull, Some(Overfull { there, settle: false }));
    for _ in 0..3 {
        case.pass(30_000);
        assert!(matches!(case.volatile.keystore, KeystoreView::Reading { .. }), "it is read again, never written");
        case.keystore_finds(Found { generation: 7, kids: kids(&["y", "z"]), strangers: KidSet::new(), opaque: false });
        assert!(case.effects.iter().all(|effect| !matches!(effect, Effect::WriteKeystore { .. })));
    }
    let generation = case.record.generation;
    case.pass(30_000);
    case.keystore_finds(Found { generation: 7, kids: kids(&["y", "z"]), strangers: KidSet::new(), opaque: false });
    assert_eq!(case.record.generation, generation, "no number is used up by looking");
    for op in [rotate("w"), Op::Supersede { fresh: kid("w") }, Op::Rollback, Op::Abort] {
        assert_eq!(case.refused(op), Why::Overfull);
    }
}

#[test]
fn resume_keeps_what_a_full_keystore_holds_once_nothing_else_can_land() {
    let mut case = overfull(|_| ());
    assert_eq!(case.refused(Op::Resume), Why::MayStillLand, "x counts as sent a moment ago");
    case.pass(Q);
    let old = case.keystore_call();
    case.op(Op::Resume);
    assert!(case.keystore_call() > old, "what it held a moment ago is not relied on");
    assert_eq!(case.hold(), Some(Hold::Restored));
    case.keystore_finds(Found { generation: 7, kids: kids(&["y", "z"]), strangers: KidSet::new(), opaque: false });
    assert_eq!((case.hold(), case.phase(), case.record.accepted.clone()), (None, "patch", kids(&["y", "z"])));
    let rotation = case.record.phase.rotation().expect("a rotation");
    assert_eq!((rotation.target, case.record.current), (kid("y"), Current::Known(kid("z"))));
    assert_eq!((rotation.dropped.clone(), rotation.compromised, rotation.number), (kids(&["x"]), false, 1));
    assert!(case.record.is_retired(kid("x")));
    case.prove();
    assert!(case.effects.iter().any(|effect| matches!(effect, Effect::Connect { .. })), "y is sent again");
}

#[test]
fn what_somebody_changes_in_a_full_keystore_before_he_resumes_is_seen() {
    let mut case = overfull(|_| ());
    case.pass(Q);
    case.op(Op::Resume);
    case.keystore_finds(Found { generation: 7, kids: kids(&["x", "z"]), strangers: KidSet::new(), opaque: false });
    assert_eq!(
        (case.record.accepted.clone(), case.target(), case.record.current),
        (kids(&["x", "z"]), Some(kid("z")), Current::Known(kid("x")))
    );

    let mut case = overfull(|_| ());
    case.pass(Q);
    case.op(Op::Resume);
    case.keystore_finds(Found { generation: 7, kids: KidSet::new(), strangers: KidSet::new(), opaque: false });
    assert_eq!((case.hold(), case.record.accepted.len()), (Some(Hold::Restored), 3), "nothing is no choice");
    assert_eq!(case.refused(Op::Resume), Why::Overfull);

    let mut case = overfull(|_| ());
    case.pass(Q);
    case.op(Op::Resume);
    let call = case.keystore_call();
    case.take(Event::KeystoreFailed { call });
    assert_eq!(case.refused(Op::Resume), Why::KeystoreUnread);
}

#[test]
fn among_several_that_the_keystore_holds_what_was_current_stays_the_way_back() {
    let mut case = Case::with(Policy { slots: Some(3), ..policy() });
    let policy = case.policy;
    case.take(Event::Boot { policy, identity: 1, restored: true, dark: 0 });
    case.keystore_finds(Found { generation: 7, kids: KidSet::new(), strangers: kids(&["s", "t", "z"]), opaque: false });
    case.pass(Q);
    case.op(Op::Resume);
    case.keystore_finds(Found { generation: 7, kids: kids(&["s", "t", "x"]), strangers: KidSet::new(), opaque: false });
    assert_eq!((case.phase(), case.target(), case.record.current), ("patch", Some(kid("s")), Current::Known(kid("x"))));
}

#[test]
fn a_key_that_still_signs_is_not_given_up_for_what_the_keystore_holds() {
    let mut case = overfull(|_| ());
    case.pass(Q);
    case.keystore_finds(Found { generation: 7, kids: kids(&["y", "z"]), strangers: KidSet::new(), opaque: false });
    case.see(delivery("y"));
    assert!(case.record.open.is_empty());
    case.see(Seen { new_body: false, ..delivery("x") });
    assert!(case.record.open.is_empty());
    case.see(Seen { accepted: Some(false), ..delivery("x") });
    assert_eq!(case.record.open, [Open { kid: kid("x"), left: Q }]);
    assert_eq!(case.refused(Op::Resume), Why::MayStillLand);
}

#[test]
fn a_leak_of_what_is_gone_is_no_hurry_any_more() {
    let mut case = overfull(|case| {
        case.op(Op::Rotate { fresh: kid("v"), cause: Cause::Demand, compromised: true, unconfirmed: false });
    });
    case.pass(Q);
    case.keystore_finds(Found { generation: 7, kids: kids(&["y", "z"]), strangers: KidSet::new(), opaque: false });
    case.op(Op::Resume);
    case.keystore_finds(Found { generation: 7, kids: kids(&["y", "z"]), strangers: KidSet::new(), opaque: false });
    let rotation = case.record.phase.rotation().expect("a rotation");
    assert_eq!((rotation.compromised, rotation.target), (false, kid("y")));
    assert!(case.record.retired.iter().all(|retired| retired.compromised == (retired.kid == kid("x"))));
    assert_eq!(case.record.retired.len(), 2, "x and v");
}

#[test]
fn a_leak_of_what_is_still_there_stays_one() {
    let mut case = overfull(|case| {
        case.op(Op::Rotate { fresh: kid("v"), cause: Cause::Demand, compromised: true, unconfirmed: false });
    });
    case.pass(Q);
    case.op(Op::Resume);
    case.keystore_finds(Found { generation: 7, kids: kids(&["x", "z"]), strangers: KidSet::new(), opaque: false });
    let rotation = case.record.phase.rotation().expect("a rotation");
    assert_eq!((rotation.compromised, rotation.target, case.record.current), (true, kid("z"), Current::Known(kid("x"))));
}

#[test]
fn in_a_restored_webhook_without_a_free_slot_resume_goes_on_with_what_is_there() {
    let mut case = Case::with(Policy { slots: Some(2), ..policy() });
    let policy = case.policy;
    case.take(Event::Boot { policy, identity: 1, restored: true, dark: 0 });
    case.roster(&[0, 1]);
    case.keystore_finds(Found { generation: 1, strangers: kids(&["y"]), ..case.found() });
    case.pass(1_000);
    case.keystore_is_right();
    assert_eq!(case.refused(rotate("z")), Why::SlotsFull);
    case.op(Op::Resume);
    assert_eq!((case.phase(), case.target(), case.record.current), ("patch", Some(kid("y")), Current::Known(kid("x"))));
}

#[test]
fn a_restored_rotation_goes_on_once_the_keystore_was_read() {
    let mut case = Case::restored();
    assert_eq!(case.refused(Op::Resume), Why::KeystoreUnread);
    case.keystore_finds(Found { generation: 2, ..case.found() });
    case.pass(1_000);
    case.keystore_is_right();
    case.op(Op::Resume);
    assert_eq!((case.hold(), case.phase(), case.target()), (None, "patch", Some(kid("y"))));
}

#[test]
fn what_the_keystore_holds_must_fit_before_it_is_settled_on() {
    let mut case = overfull(|_| ());
    case.pass(Q);
    let all = Found { generation: 7, kids: kids(&["x", "y", "z"]), strangers: KidSet::new(), opaque: false };
    case.keystore_finds(all.clone());
    assert_eq!(case.refused(Op::Resume), Why::Overfull);
    // Also where somebody adds to it between the question and the answer.
    case.pass(30_000);
    case.keystore_finds(Found { kids: kids(&["y", "z"]), ..all.clone() });
    case.op(Op::Resume);
    case.keystore_finds(all);
    assert_eq!((case.hold(), case.record.accepted.clone()), (Some(Hold::Restored), kids(&["x", "y", "z"])));
    assert_eq!(case.refused(Op::Resume), Why::Overfull);
}

#[test]
fn a_restored_record_is_not_forgotten_by_calling_its_secret_unknown() {
    for (case, why) in [(overfull(|_| ()), Why::OnlyForward), (Case::restored(), Why::RotationUnderWay)] {
        assert_eq!(case.refused(Op::Adopt { kid: None, generation: None, replace: false }), why);
        assert_eq!(case.hold(), Some(Hold::Restored));
    }
}

#[test]
fn what_an_abort_was_taking_away_is_still_to_be_refused_after_a_restore() {
    let mut case = Case::with(Policy { slots: Some(2), ..policy() });
    case.op(rotate("y"));
    case.op(Op::Abort);
    let policy = case.policy;
    case.take(Event::Boot { policy, identity: 1, restored: true, dark: 0 });
    case.roster(&[0, 1]);
    case.keystore_finds(Found { generation: 7, strangers: kids(&["z"]), ..case.found() });
    case.pass(Q);
    case.keystore_is_right();
    case.op(Op::Resume);
    let rotation = case.record.phase.rotation().expect("a rotation");
    assert_eq!((case.phase(), rotation.target, rotation.dropped.clone()), ("patch", kid("z"), kids(&["y"])));
}
