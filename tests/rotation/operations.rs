//! What people may ask for, and when it is refused.

use hookturn::rotation::{
    Cause, Current, Event, Hold, Inspection, Note, Op, Open, PatchAnswer, Phase, Policy, Reaccepted, Retired, Why,
};

use crate::case::{Case, delivery, kid, kids, policy, rotate};

fn supersede(name: &str) -> Op {
    Op::Supersede { fresh: kid(name) }
}

fn adopt(name: Option<&str>) -> Op {
    Op::Adopt { kid: name.map(kid), generation: None, replace: false }
}

fn two_slots() -> Policy {
    Policy { slots: Some(2), ..policy() }
}

fn buried(case: &mut Case, name: &str, compromised: bool) {
    case.record.retired.push(Retired { kid: kid(name), compromised });
}

#[test]
fn a_rotation_begins_from_an_adopted_confirmed_unpaused_idle_webhook() {
    let mut case = Case::idle();
    case.record.current = Current::Missing;
    assert_eq!(case.refused(rotate("y")), Why::NotAdopted);
    let mut case = Case::idle();
    case.record.confirmed = false;
    assert_eq!(case.refused(rotate("y")), Why::Unconfirmed);
    for (compromised, unconfirmed) in [(true, false), (false, true)] {
        let mut case = Case::idle();
        case.record.confirmed = false;
        case.op(Op::Rotate { fresh: kid("y"), cause: Cause::Schedule, compromised, unconfirmed });
        assert_eq!(case.phase(), "push");
    }
    let mut case = Case::idle();
    case.op(Op::Pause);
    assert_eq!(case.refused(rotate("y")), Why::Paused);
    for case in [Case::push(), Case::patch(), Case::drain(), Case::retire(), Case::abort()] {
        assert_eq!(case.refused(rotate("z")), Why::RotationUnderWay);
    }
    let mut case = Case::push();
    assert_eq!((case.record.rotations, case.record.generation, case.losses()), (1, 2, 0));
    assert_eq!(case.record.accepted, kids(&["x", "y"]));
    case.boot();
    assert_eq!(case.target(), Some(kid("y")), "a restart finds the same target");
}

#[test]
fn a_key_id_is_used_once() {
    let mut case = Case::idle();
    buried(&mut case, "old", false);
    for used in ["x", "old"] {
        assert_eq!(case.refused(rotate(used)), Why::UsedKid);
    }
    let mut case = Case::patch();
    buried(&mut case, "old", false);
    for used in ["x", "y", "old"] {
        assert_eq!(case.refused(supersede(used)), Why::UsedKid);
    }
    let mut case = Case::idle();
    buried(&mut case, "old", false);
    assert_eq!(case.refused(adopt(Some("old"))), Why::UsedKid);
}

#[test]
fn the_slots_of_the_keystore_are_heeded() {
    let mut case = Case::with(two_slots());
    buried(&mut case, "old", false);
    case.op(rotate("y"));
    case.prove();
    case.send();
    assert_eq!(case.refused(supersede("z")), Why::SlotsFull);
    let mut case = Case::with(two_slots());
    case.op(rotate("y"));
    case.op(supersede("z"));
    assert_eq!(case.record.accepted, kids(&["x", "z"]), "y was never sent: its slot is free");
    let mut case = Case::with(two_slots());
    buried(&mut case, "old", false);
    case.op(Op::Reaccept { kid: kid("old"), credit: 60_000 });
    assert_eq!(case.refused(rotate("y")), Why::SlotsFull);
    buried(&mut case, "older", false);
    assert_eq!(case.refused(Op::Reaccept { kid: kid("older"), credit: 1 }), Why::SlotsFull);
    case.op(Op::Reaccept { kid: kid("old"), credit: 90_000 });
    assert_eq!(case.record.reaccepted.len(), 1, "longer, in the same slot");
    let mut case = Case::with(Policy { slots: Some(1), ..policy() });
    assert_eq!(case.refused(adopt(Some("m"))), Why::SlotsFull);
    case.op(Op::Adopt { kid: Some(kid("m")), generation: None, replace: true });
    assert_eq!(case.record.accepted, kids(&["m"]));
}

#[test]
fn an_abort_is_for_what_was_never_sent() {
    let mut case = Case::push();
    case.op(Op::Abort);
    assert!(case.notes.contains(&Note::AbortBegan { kid: kid("y") }));
    assert_eq!(case.record.accepted, kids(&["x"]));
    case.keystore_is_right();
    case.pass(5_000);
    case.replicas_accept();
    assert_eq!((case.phase(), case.record.current, case.record.confirmed), ("idle", Current::Known(kid("x")), true));
    assert!(case.notes.contains(&Note::Aborted { number: 1 }));
    assert_eq!(Case::idle().refused(Op::Abort), Why::NoRotation);
    assert_eq!(Case::patch().refused(Op::Abort), Why::AlreadySent);
    assert_eq!(Case::drain().refused(Op::Abort), Why::AlreadySent);
    assert_eq!(Case::retire().refused(Op::Abort), Why::Retiring);
    assert_eq!(Case::abort().refused(Op::Abort), Why::Retiring);
    let mut case = Case::patch();
    case.op(supersede("z"));
    assert_eq!(case.refused(Op::Abort), Why::AlreadySent, "y was sent: only forward, or a rollback");
    let mut case = Case::push();
    case.record.accepted.insert(kid("s"));
    assert_eq!(case.refused(Op::Abort), Why::OnlyForward, "a stranger's key may be what DialNexa signs with");
    let mut case = Case::push();
    case.record.current = Current::Unknown;
    case.record.accepted = kids(&["y"]);
    assert_eq!(case.refused(Op::Abort), Why::NoWayBack, "nothing could show its end");
}

#[test]
fn an_abort_goes_back_to_the_only_secret_there_is_also_from_its_successor() {
    let mut case = Case::patch();
    (case.record.current, case.record.accepted) = (Current::Known(kid("y")), kids(&["y"]));
    case.op(supersede("z"));
    case.op(Op::Abort);
    assert_eq!((case.phase(), case.record.accepted.clone()), ("abort", kids(&["y"])));
}

#[test]
fn a_target_that_a_request_may_carry_is_never_dropped() {
    let mut case = Case::push();
    case.record.open = vec![Open { kid: kid("y"), left: 1_000 }];
    assert_eq!(case.refused(Op::Abort), Why::AlreadySent);
    case.op(supersede("z"));
    assert_eq!(case.record.accepted, kids(&["x", "y", "z"]));
}

#[test]
fn a_rollback_is_for_what_was_sent_and_goes_back_to_a_secret_that_is_known_and_safe() {
    for mut case in [Case::patch(), Case::drain()] {
        case.op(Op::Rollback);
        assert_eq!((case.phase(), case.target(), case.record.current), ("patch", Some(kid("x")), Current::Known(kid("y"))));
        assert_eq!(case.record.phase.rotation().map(|r| r.cause), Some(Cause::Rollback));
        assert!(case.volatile.verdicts.is_empty(), "they were asked for the other");
        assert!(case.volatile.timers.line_retry.due());
        assert_eq!(case.record.accepted, kids(&["x", "y"]));
    }
    assert_eq!(Case::idle().refused(Op::Rollback), Why::NoRotation);
    assert_eq!(Case::push().refused(Op::Rollback), Why::NeverSent);
    assert_eq!(Case::retire().refused(Op::Rollback), Why::Retiring);
    assert_eq!(Case::abort().refused(Op::Rollback), Why::Retiring);
    let mut case = Case::patch();
    case.op(Op::Compromise);
    assert_eq!(case.refused(Op::Rollback), Why::Compromised);
    let mut case = Case::patch();
    case.record.current = Current::Unknown;
    assert_eq!(case.refused(Op::Rollback), Why::NoWayBack);
    let mut case = Case::patch();
    case.record.current = Current::Known(kid("y"));
    assert_eq!(case.refused(Op::Rollback), Why::NoWayBack);
}

#[test]
fn a_rollback_before_the_successor_was_sent_drops_the_successor() {
    let mut case = Case::patch();
    case.op(supersede("z"));
    assert_eq!((case.phase(), case.target()), ("push", Some(kid("z"))));
    assert_eq!(case.record.phase.rotation().map(|r| r.cause), Some(Cause::Supersede));
    let generation = case.record.generation;
    case.op(Op::Rollback);
    assert_eq!((case.phase(), case.target(), case.record.current), ("patch", Some(kid("x")), Current::Known(kid("y"))));
    assert_eq!(case.record.accepted, kids(&["x", "y"]));
    assert!(case.record.is_retired(kid("z")));
    assert!(case.record.phase.rotation().is_some_and(|r| r.dropped == kids(&["z"])), "replicas must forget it too");
    assert_eq!(case.record.generation, generation + 1);
}

#[test]
fn superseding_keeps_what_was_sent_and_drops_what_was_not() {
    let mut case = Case::push();
    case.op(supersede("z"));
    assert_eq!((case.target(), case.record.accepted.clone()), (Some(kid("z")), kids(&["x", "z"])));
    assert_eq!(
        case.record.phase.rotation().map(|r| (r.cause, r.number, r.dropped.clone())),
        Some((Cause::Demand, 2, kids(&["y"])))
    );
    assert!(case.record.is_retired(kid("y")));
    for mut case in [Case::patch(), Case::drain()] {
        case.op(supersede("z"));
        assert_eq!((case.target(), case.record.accepted.clone(), case.phase()), (Some(kid("z")), kids(&["x", "y", "z"]), "push"));
        assert_eq!(case.record.current, Current::Known(kid("x")));
        assert!(case.notes.contains(&Note::Superseded { by: kid("z") }));
    }
    let mut case = Case::retire();
    case.op(supersede("z"));
    assert_eq!((case.record.current, case.record.confirmed), (Current::Known(kid("y")), true));
    assert!(
        case.record.phase.rotation().is_some_and(|r| r.dropped == kids(&["x"]) && !r.compromised && r.cause == Cause::Demand)
    );
    let mut case = Case::abort();
    case.op(supersede("z"));
    assert_eq!(case.record.current, Current::Known(kid("x")));
    assert!(case.record.phase.rotation().is_some_and(|r| r.dropped == kids(&["y"])));
    assert_eq!(Case::idle().refused(supersede("z")), Why::NoRotation);
    let mut case = Case::patch();
    case.op(Op::Pause);
    assert_eq!(case.refused(supersede("z")), Why::Paused);
    let mut case = Case::patch();
    case.op(Op::Compromise);
    case.op(supersede("z"));
    assert!(case.record.phase.rotation().is_some_and(|r| r.compromised), "the leak is not forgotten");
}

#[test]
fn a_leak_can_be_told_at_any_time_before_the_retire_but_not_of_the_secret_that_is_returned_to() {
    for mut case in [Case::push(), Case::patch(), Case::drain()] {
        case.op(Op::Compromise);
        assert!(case.record.phase.rotation().is_some_and(|r| r.compromised));
        assert!(case.notes.contains(&Note::Compromised));
    }
    assert_eq!(Case::idle().refused(Op::Compromise), Why::NoRotation);
    assert_eq!(Case::retire().refused(Op::Compromise), Why::Retiring);
    assert_eq!(Case::abort().refused(Op::Compromise), Why::Retiring);
    let mut case = Case::drain();
    case.op(Op::Compromise);
    assert!(case.volatile.reproving, "what leaked is not drained");
    let mut case = Case::patch();
    case.op(Op::Rollback);
    assert_eq!(case.refused(Op::Compromise), Why::Compromised);
    let mut case = Case::patch();
    case.see(hookturn::rotation::Seen { accepted: Some(false), ..delivery("y") });
    assert_eq!(case.refused(Op::Compromise), Why::Compromised);
}

#[test]
fn reaccepting_is_for_retired_secrets_that_did_not_leak_while_idle() {
    let mut case = Case::idle();
    assert_eq!(case.refused(Op::Reaccept { kid: kid("never"), credit: 1 }), Why::NotRetired);
    buried(&mut case, "leaked", true);
    assert_eq!(case.refused(Op::Reaccept { kid: kid("leaked"), credit: 1 }), Why::Compromised);
    buried(&mut case, "old", false);
    case.op(Op::Reaccept { kid: kid("old"), credit: 60_000 });
    assert_eq!((case.record.keystore_kids(), case.record.accepted.clone()), (kids(&["old", "x"]), kids(&["x"])));
    assert_eq!(case.record.generation, 2);
    case.op(Op::Reaccept { kid: kid("old"), credit: 90_000 });
    assert_eq!((case.record.reaccepted[0].left, case.record.generation), (90_000, 2), "longer, and nothing to write");
    assert_eq!(case.refused(rotate("old")), Why::UsedKid);
    let mut case = Case::push();
    buried(&mut case, "old", false);
    assert_eq!(case.refused(Op::Reaccept { kid: kid("old"), credit: 1 }), Why::RotationUnderWay);
}

#[test]
fn adopting_writes_the_first_generation_or_takes_the_one_that_is_there() {
    let mut case = Case::idle();
    case.record = hookturn::rotation::Record::unadopted(policy(), 1);
    let mut there = Case { record: case.record.clone(), ..Case::idle() };
    case.op(adopt(Some("x")));
    assert_eq!((case.record.current, case.record.generation, case.record.kept), (Current::Known(kid("x")), 1, 0));
    assert!(!case.record.confirmed);
    case.keystore_is_right();
    assert_eq!(case.record.kept, 1);
    there.op(Op::Adopt { kid: Some(kid("x")), generation: Some(9), replace: false });
    assert_eq!((there.record.generation, there.record.kept, there.effects.len()), (9, 9, 0));
    let mut unknown = Case::idle();
    unknown.record = hookturn::rotation::Record::unadopted(policy(), 1);
    unknown.op(adopt(None));
    assert_eq!((unknown.record.current, unknown.record.generation), (Current::Unknown, 0));
    unknown.op(Op::Rotate { fresh: kid("y"), cause: Cause::Demand, compromised: false, unconfirmed: true });
    assert_eq!(unknown.record.accepted, kids(&["y"]));
    for case in [Case::push(), Case::patch(), Case::retire()] {
        assert_eq!(case.refused(adopt(Some("m"))), Why::RotationUnderWay);
    }
    let mut again = Case::idle();
    again.op(adopt(Some("x")));
    assert_eq!((again.record.generation, again.record.confirmed), (1, false), "the same key: nothing to write");
    again.op(adopt(Some("m")));
    assert_eq!((again.record.generation, again.record.accepted.clone()), (2, kids(&["m", "x"])));
    again.record.generation = 5;
    again.op(Op::Adopt { kid: Some(kid("m")), generation: Some(3), replace: false });
    assert_eq!(again.record.generation, 5, "a generation never falls");
}

#[test]
fn a_hold_is_left_by_a_person_and_everything_is_proven_again() {
    let mut case = Case::sent();
    case.answer(PatchAnswer::WebhookGone);
    assert_eq!(case.hold(), Some(Hold::WebhookGone));
    case.pass(1_000_000);
    assert!(case.hold().is_some() && case.connecting().is_none(), "time changes nothing");
    case.see(delivery("y"));
    assert_eq!(case.hold(), Some(Hold::WebhookGone), "nor does a delivery");
    case.op(Op::Resume);
    assert_eq!((case.phase(), case.volatile.verdicts.len()), ("patch", 0));
    assert!(case.notes.contains(&Note::Resumed));
    assert_eq!(Case::patch().refused(Op::Resume), Why::NotHeld);
    let mut case = Case::patch();
    case.op(Op::Pause);
    assert!(case.record.paused && case.notes.contains(&Note::Paused));
    case.op(Op::Resume);
    assert!(!case.record.paused);
    assert!(!case.volatile.verdicts.is_empty(), "a pause puts nothing in doubt");
}

#[test]
fn a_restored_store_goes_forward_only_once_the_keystore_was_read() {
    let mut case = Case::restored();
    for op in [rotate("z"), Op::Abort, Op::Rollback, supersede("z"), Op::Resume] {
        assert_eq!(case.refused(op), Why::KeystoreUnread);
    }
    case.keystore_is_right();
    assert_eq!(case.refused(rotate("z")), Why::RotationUnderWay);
    case.op(supersede("z"));
    assert_eq!(case.phase(), "push");

    let mut case = Case::idle();
    case.take(Event::Boot { policy: policy(), identity: 1, restored: true, dark: 0 });
    let found = hookturn::rotation::Found { generation: 7, kids: kids(&["x"]), strangers: kids(&["s"]), opaque: false };
    case.keystore_finds(found);
    assert_eq!(case.record.accepted, kids(&["s", "x"]));
    case.keystore_is_right();
    assert_eq!(case.refused(Op::Resume), Why::OnlyForward, "DialNexa may sign with either");
    case.op(rotate("z"));
    assert_eq!(case.phase(), "push");
}

#[test]
fn a_restored_webhook_with_one_secret_and_nothing_under_way_is_simply_left() {
    let mut case = Case::idle();
    case.take(Event::Boot { policy: policy(), identity: 1, restored: true, dark: 0 });
    case.keystore_is_right();
    case.op(Op::Resume);
    assert_eq!((case.hold(), case.phase()), (None, "idle"));
}

#[test]
fn another_identity_holds_until_it_is_back() {
    let mut case = Case::patch();
    case.take(Event::Boot { policy: two_slots(), identity: 2, restored: false, dark: 0 });
    assert_eq!((case.hold(), case.record.policy.slots), (Some(Hold::ConfigDrift), None));
    assert_eq!(case.refused(Op::Resume), Why::ConfigDrift);
    case.take(Event::Boot { policy: policy(), identity: 2, restored: false, dark: 0 });
    assert_eq!(case.hold(), Some(Hold::ConfigDrift));
    case.boot();
    assert_eq!((case.hold(), case.phase()), (None, "patch"));
}

#[test]
fn nothing_is_taken_before_the_boot() {
    let mut case = Case::patch();
    case.volatile = hookturn::rotation::Volatile::default();
    assert_eq!(case.refused(Op::Pause), Why::NotBooted);
}

#[test]
fn sixteen_graves_are_remembered_the_oldest_goes_first() {
    for (before, oldest) in [(15, "old0"), (16, "old1")] {
        let mut case = Case::push();
        for at in 0..before {
            buried(&mut case, &format!("old{at}"), false);
        }
        case.op(Op::Abort);
        assert_eq!((case.record.retired.len(), case.record.retired[0].kid), (16, kid(oldest)));
        assert!(case.record.is_retired(kid("y")));
    }
}

#[test]
fn a_reaccepted_secret_that_a_rotation_keeps_is_no_longer_a_guest() {
    let mut case = Case::reproving();
    case.record.reaccepted = ["w", "y"].map(|name| Reaccepted { kid: kid(name), left: 1_000 }).to_vec();
    case.keystore_is_right();
    case.inspected(Inspection::Active);
    case.replicas_accept();
    assert!(matches!(&case.record.phase, Phase::Retire(_, shrinking) if shrinking.removed == kids(&["x"])));
    assert_eq!((case.record.reaccepted.len(), case.record.keystore_kids()), (1, kids(&["w", "y"])), "another stays one");
}

#[test]
fn what_is_reaccepted_takes_a_slot_too() {
    let mut case = Case::with(Policy { slots: Some(2), ..policy() });
    case.record.reaccepted = vec![Reaccepted { kid: kid("w"), left: 1 }];
    assert_eq!(case.refused(Op::Adopt { kid: Some(kid("m")), generation: None, replace: false }), Why::SlotsFull);
}

#[test]
fn another_attempt_that_is_open_does_not_stand_in_the_way_of_an_abort() {
    let mut case = Case::idle();
    case.record.open = vec![Open { kid: kid("x"), left: 1_000 }];
    case.op(rotate("y"));
    case.op(Op::Abort);
    assert_eq!(case.phase(), "abort");
}

#[test]
fn a_supersede_takes_neither_what_is_accepted_nor_what_was_retired() {
    let mut case = Case::patch();
    case.record.retired = vec![Retired { kid: kid("w"), compromised: false }];
    for used in ["x", "y", "w"] {
        assert_eq!(case.refused(supersede(used)), Why::UsedKid);
    }
}
