//! What a delivery proves.

use hookturn::rotation::{Current, Draining, Event, Freshness, Note, Op, PatchAnswer, Patching, Phase, Policy, Seen};

use crate::case::{Case, D, Q, delivery, kid, kids, policy, rotate};

fn patching(case: &Case) -> &Patching {
    match case.record.phase.underlying() {
        Phase::Patch(_, patching) => patching,
        other => panic!("not in patch: {other:?}"),
    }
}

fn draining(case: &Case) -> &Draining {
    match case.record.phase.underlying() {
        Phase::Drain(_, draining) => draining,
        other => panic!("not in drain: {other:?}"),
    }
}

#[test]
fn a_new_genuine_delivery_under_the_target_is_the_switch_proof_and_nothing_else_is() {
    for other in
        [Seen { probe: true, ..delivery("y") }, Seen { new_body: false, ..delivery("y") }, delivery("x"), delivery("unheard-of")]
    {
        let mut case = Case::patch();
        case.see(other);
        assert_eq!(case.phase(), "patch", "{other:?}");
    }
    for accepted in [None, Some(true)] {
        let mut case = Case::patch();
        case.see(Seen { accepted, ..delivery("y") });
        assert_eq!(case.phase(), "drain");
        assert_eq!(*draining(&case), Draining { left: D, settled: true, proven: true });
        assert!(case.notes.contains(&Note::SwitchProven { kid: kid("y") }));
    }
}

#[test]
fn as_many_deliveries_over_as_long_as_was_configured_make_the_proof() {
    let policy = Policy { min_deliveries: 3, min_span: 60_000, ..policy() };
    let mut case = Case::with(policy);
    case.op(rotate("y"));
    case.prove();
    case.send();
    case.pass(100_000);
    case.see(delivery("y"));
    case.see(Seen { new_body: false, ..delivery("y") });
    case.see(delivery("y"));
    case.pass(59_999);
    case.see(delivery("y"));
    assert_eq!((case.phase(), patching(&case).seen), ("patch", 3), "enough of them, over too short a time");
    case.pass(1);
    assert_eq!(case.phase(), "patch", "time alone decides nothing");
    case.see(delivery("y"));
    assert_eq!(case.phase(), "drain");

    let mut case = Case::with(Policy { min_span: 0, ..policy });
    case.op(rotate("y"));
    case.prove();
    case.send();
    case.see(delivery("y"));
    case.see(delivery("y"));
    assert_eq!(case.phase(), "patch");
    case.see(delivery("y"));
    assert_eq!(case.phase(), "drain");
}

#[test]
fn time_with_closed_doors_does_not_count_for_the_span() {
    let mut case = Case::with(Policy { min_deliveries: 2, min_span: 60_000, ..policy() });
    case.op(rotate("y"));
    case.prove();
    case.send();
    case.see(delivery("y"));
    case.take(Event::Tick { elapsed: 100_000, observed: 0 });
    case.see(delivery("y"));
    assert_eq!(case.phase(), "patch");
}

#[test]
fn a_target_that_dialnexa_had_before_is_believed_only_after_quarantine_and_drain() {
    let mut case = Case::patch();
    case.op(Op::Rollback);
    assert_eq!(patching(&case).freshness, Freshness::ForeignOpen);
    assert!(case.notes.contains(&Note::RolledBack { to: kid("x") }));
    case.see(delivery("x"));
    assert_eq!(patching(&case).seen, 0, "y may still land");
    case.pass(Q);
    assert_eq!(patching(&case).freshness, Freshness::Waiting { left: D });
    case.see(delivery("x"));
    assert_eq!(patching(&case).seen, 0, "it may have been signed long ago");
    case.pass(D - 1);
    assert_eq!(patching(&case).freshness, Freshness::Waiting { left: 1 });
    case.pass(1);
    assert_eq!(patching(&case).freshness, Freshness::Fresh);
    case.see(delivery("x"));
    assert_eq!(case.phase(), "drain");
    assert_eq!(case.record.current, Current::Known(kid("y")), "what is given up is what the retire takes");
}

#[test]
fn a_rollback_when_nothing_foreign_is_open_still_waits_for_old_deliveries() {
    let mut case = Case::patch();
    case.pass(Q);
    case.op(Op::Rollback);
    assert_eq!(patching(&case).freshness, Freshness::Waiting { left: D });
}

#[test]
fn a_new_body_under_the_old_secret_breaks_the_drain() {
    for other in [Seen { new_body: false, ..delivery("x") }, Seen { probe: true, ..delivery("x") }, delivery("unheard-of")] {
        let mut case = Case::drain();
        case.see(other);
        assert_eq!(case.phase(), "drain", "{other:?}");
    }
    let mut case = Case::reproving();
    case.see(delivery("x"));
    assert_eq!((case.phase(), case.volatile.reproving), ("patch", false));
    assert!(case.notes.contains(&Note::DrainBroken { kid: kid("x") }));
    assert!(patching(&case).answered && patching(&case).settled && patching(&case).sent == 1);
    assert_eq!(case.volatile.timers.line_retry.left, 5_000, "the target is sent again soon");
    case.see(delivery("y"));
    assert_eq!(draining(&case).left, D, "and the drain begins again from the start");
}

#[test]
fn an_emergency_goes_by_a_200_only_when_no_other_request_was_open_before_and_after() {
    let leaked =
        || Op::Rotate { fresh: kid("y"), cause: hookturn::rotation::Cause::Demand, compromised: true, unconfirmed: false };
    let mut case = Case::idle();
    case.op(leaked());
    case.prove();
    case.send();
    case.answer(PatchAnswer::Applied);
    assert!(case.volatile.reproving, "no traffic is waited for");
    case.keystore_is_right();
    case.replicas_accept();
    assert_eq!(case.phase(), "retire", "and DialNexa is not asked first");
    assert!(case.record.retired.iter().all(|retired| retired.compromised));
    assert!(matches!(&case.record.phase, Phase::Retire(_, shrinking) if !shrinking.proven));
    case.keystore_is_right();
    case.pass(5_000);
    case.replicas_accept();
    assert_eq!((case.phase(), case.record.confirmed), ("idle", false), "nobody has seen a delivery under it");

    let mut case = Case::idle();
    case.record.open = vec![hookturn::rotation::Open { kid: kid("old"), left: Q }];
    case.op(leaked());
    case.prove();
    case.send();
    case.pass(Q);
    case.keystore_is_right();
    case.replicas_accept();
    case.answer(PatchAnswer::Applied);
    assert!(!patching(&case).settled, "another request was open when it was sent");
    assert!(case.volatile.timers.line_retry.due() || case.connecting().is_some(), "so it is sent once more, at once");
    case.send();
    case.answer(PatchAnswer::Applied);
    assert!(patching(&case).settled);

    let mut case = Case::idle();
    case.record.open = vec![hookturn::rotation::Open { kid: kid("old"), left: Q }];
    case.op(leaked());
    case.prove();
    case.send();
    case.answer(PatchAnswer::Applied);
    assert_eq!(case.volatile.timers.line_retry.left, case.policy.repeat_max);
    case.pass(Q);
    assert!(case.volatile.timers.line_retry.due(), "nor does it wait longer than the other request may");

    let mut case = Case::idle();
    case.op(leaked());
    case.prove();
    case.send();
    case.answer(PatchAnswer::Ambiguous { wait: 0 });
    assert!(!case.volatile.reproving, "a time-out is not an answer");
    case.see(delivery("y"));
    assert!(case.volatile.reproving, "a delivery is; there is no drain");
}

#[test]
fn a_secret_is_confirmed_by_a_delivery_that_its_consumer_did_not_refuse() {
    for (seen, confirmed) in [
        (delivery("x"), true),
        (Seen { accepted: Some(true), ..delivery("x") }, true),
        (Seen { accepted: Some(false), ..delivery("x") }, false),
        (Seen { probe: true, ..delivery("x") }, false),
        (delivery("y"), false),
    ] {
        let mut case = Case::idle();
        case.record.confirmed = false;
        case.see(seen);
        assert_eq!(case.record.confirmed, confirmed, "{seen:?}");
        assert_eq!(case.notes.contains(&Note::Confirmed { kid: kid("x") }), confirmed);
    }
    let mut case = Case::idle();
    case.see(delivery("x"));
    assert!(case.notes.is_empty(), "said once");
    let mut case = Case::push();
    case.record.confirmed = false;
    case.see(delivery("x"));
    assert!(!case.record.confirmed, "in a rotation it is the rotation's business");
}

#[test]
fn a_delivery_under_a_retired_secret_is_noted() {
    let mut case = Case::retire();
    case.see(delivery("x"));
    assert!(case.notes.contains(&Note::RetiredKeySeen { kid: kid("x") }));
    for other in ["y", "unheard-of"] {
        case.see(delivery(other));
        assert!(case.notes.is_empty());
    }
}

#[test]
fn a_rotation_ends_confirmed_with_the_target_current_and_the_old_secret_in_its_grave() {
    let mut case = Case::retire();
    assert_eq!((case.record.accepted.clone(), case.record.retired.len()), (kids(&["y"]), 1));
    assert!(case.notes.contains(&Note::RetireBegan { keep: kid("y"), removed: kids(&["x"]) }));
    case.keystore_is_right();
    case.pass(5_000);
    let asked = case.effects.iter().find_map(|effect| match effect {
        hookturn::rotation::Effect::AskReplicas { accept, refuse, control, full, .. } => {
            Some((*accept, refuse.clone(), *control, *full))
        }
        _ => None,
    });
    assert_eq!(asked, Some((kid("y"), kids(&["x"]), None, true)));
    case.replicas_accept();
    assert_eq!((case.phase(), case.record.current, case.record.confirmed), ("idle", Current::Known(kid("y")), true));
    assert_eq!(case.record.kept, case.record.generation);
    assert!(case.notes.contains(&Note::Completed { number: 1, current: kid("y") }));
}
