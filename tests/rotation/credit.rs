//! Waits are credit: what counts, what a crash may lose, when it is put on record.

use hookturn::rotation::{Event, Note, Op, Open, PatchAnswer, Phase, Policy, Reaccepted, wake_in};

use crate::case::{Case, D, Q, delivery, kid, policy, rotate};

fn drain_left(case: &Case) -> u64 {
    match case.record.phase.underlying() {
        Phase::Drain(_, draining) => draining.left,
        other => panic!("not draining: {other:?}"),
    }
}

fn open_left(case: &Case, name: &str) -> Option<u64> {
    case.record.open.iter().find(|open| open.kid == kid(name)).map(|open| open.left)
}

#[test]
fn little_credit_waits_in_memory_and_is_banked_every_ten_seconds() {
    let mut case = Case::drain();
    let seq = case.record.seq;
    case.pass(9_999);
    assert_eq!((drain_left(&case), case.record.seq), (D, seq), "no commit for this");
    assert_eq!((case.volatile.accrued.elapsed, case.volatile.accrued.observed), (9_999, 9_999));
    case.pass(1);
    assert_eq!((drain_left(&case), case.record.seq), (D - 10_000, seq + 1));
    assert_eq!((case.volatile.accrued.elapsed, case.volatile.accrued.observed), (0, 0));
    assert_eq!(open_left(&case, "y"), Some(Q - 10_000));
}

#[test]
fn a_short_wait_is_banked_by_its_tenths() {
    let mut case = Case::with(Policy { drain: 5_000, quarantine: 1_000_000, ..policy() });
    case.op(rotate("y"));
    case.prove();
    case.send();
    case.see(delivery("y"));
    case.pass(499);
    assert_eq!(drain_left(&case), 5_000);
    case.pass(1);
    assert_eq!(drain_left(&case), 4_500);
}

#[test]
fn another_change_takes_the_credit_along() {
    let mut case = Case::drain();
    case.pass(4_000);
    case.op(Op::Pause);
    assert_eq!(drain_left(&case), D - 4_000);
}

#[test]
fn credit_from_before_a_wait_is_not_given_to_it() {
    let mut case = Case::patch();
    case.pass(4_000);
    case.see(delivery("y"));
    assert_eq!(drain_left(&case), D);
}

#[test]
fn the_drain_counts_only_while_the_doors_were_open_and_the_quarantine_always() {
    let mut case = Case::drain();
    case.take(Event::Tick { elapsed: 100_000, observed: 30_000 });
    assert_eq!((drain_left(&case), open_left(&case, "y")), (D - 30_000, Some(Q - 100_000)));
    case.take(Event::Tick { elapsed: 10_000, observed: 99_000 });
    assert_eq!(drain_left(&case), D - 40_000, "more than went by cannot have been observed");
}

#[test]
fn a_process_that_was_away_counts_what_the_machine_vouches_for_and_not_for_the_drain() {
    let mut case = Case::drain();
    case.pass(10_000);
    let policy = case.policy;
    case.take(Event::Boot { policy, identity: 1, restored: false, dark: 60_000 });
    assert_eq!((drain_left(&case), open_left(&case, "y")), (D - 10_000, Some(Q - 70_000)));
}

#[test]
fn a_crash_loses_what_was_not_banked() {
    let mut case = Case::drain();
    case.pass(9_000);
    case.boot();
    assert_eq!((drain_left(&case), case.volatile.accrued.elapsed), (D, 0));
}

#[test]
fn an_attempt_closes_after_its_quarantine_and_not_while_it_is_being_answered() {
    let mut case = Case::patch();
    case.pass(Q - 1);
    assert_eq!(open_left(&case, "y"), Some(1));
    case.pass(1);
    assert_eq!(open_left(&case, "y"), None);
    assert!(case.notes.contains(&Note::QuarantineOver { kid: kid("y") }));
}

#[test]
fn the_quarantine_begins_when_the_exchange_is_over_however_long_it_took() {
    for answer in [PatchAnswer::Ambiguous { wait: 0 }, PatchAnswer::Applied, PatchAnswer::Limited { wait: 0 }] {
        let mut case = Case::sent();
        // A machine that slept over it.
        case.pass(3 * Q);
        case.pass(4_000);
        assert_eq!(open_left(&case, "y"), Some(Q));
        case.answer(answer);
        assert_eq!((open_left(&case, "y"), case.volatile.accrued.elapsed), (Some(Q), 0), "{answer:?}");
        case.pass(10_000);
        assert_eq!(open_left(&case, "y"), Some(Q - 10_000));
    }
    // Also where the target was given up while its request was under way.
    let mut case = Case::sent();
    case.op(Op::Rollback);
    case.pass(Q);
    assert_eq!(open_left(&case, "y"), Some(Q));
    case.answer(PatchAnswer::Ambiguous { wait: 0 });
    case.pass(Q);
    assert_eq!(open_left(&case, "y"), None);
}

#[test]
fn an_answer_of_another_attempt_ends_nothing() {
    let mut case = Case::sent();
    case.record.open.push(Open { kid: kid("z"), left: Q });
    case.pass(4_000);
    case.take(Event::Patched { attempt: 9, answer: PatchAnswer::Applied });
    assert_eq!((open_left(&case, "z"), case.volatile.accrued.elapsed), (Some(Q), 4_000));
    case.answer(PatchAnswer::Applied);
    assert_eq!((open_left(&case, "z"), case.volatile.accrued.elapsed), (Some(Q - 4_000), 0));
}

#[test]
fn of_a_process_that_died_nobody_knows_when_its_request_left() {
    let mut case = Case::sent();
    case.record.open.push(Open { kid: kid("z"), left: Q - 1 });
    let policy = case.policy;
    case.take(Event::Boot { policy, identity: 1, restored: false, dark: Q / 2 });
    assert_eq!((open_left(&case, "y"), open_left(&case, "z")), (Some(Q), Some(Q / 2 - 1)));
    assert_eq!(wake_in(&case.record, &case.volatile), Some(10_000));
}

#[test]
fn an_attempt_that_is_being_answered_wakes_nobody_for_its_quarantine() {
    let case = Case::sent();
    let looks = case.volatile.timers.look;
    assert_eq!(wake_in(&case.record, &case.volatile), Some(looks));
}

#[test]
fn each_attempt_begins_the_quarantine_again() {
    let mut case = Case::sent();
    case.answer(PatchAnswer::Ambiguous { wait: 0 });
    case.pass(5_000);
    case.send();
    assert_eq!(open_left(&case, "y"), Some(Q));
    assert_eq!(case.record.open.len(), 1);
    assert_eq!(case.record.attempts, 2);
}

#[test]
fn what_is_reaccepted_ends_when_idle_time_has_gone_by() {
    let mut case = Case::retire();
    case.keystore_is_right();
    case.pass(5_000);
    case.replicas_accept();
    case.record.retired[0].compromised = false;
    case.op(Op::Reaccept { kid: kid("x"), credit: 20_000 });
    case.keystore_is_right();
    case.op(rotate("z"));
    case.pass(50_000);
    assert_eq!(case.record.reaccepted.len(), 1, "not in a rotation");
    case.op(Op::Abort);
    case.keystore_is_right();
    case.pass(5_000);
    case.replicas_accept();
    assert_eq!(case.phase(), "idle");
    let generation = case.record.generation;
    case.pass(19_999);
    assert_eq!(case.record.reaccepted.len(), 1);
    case.pass(10_000);
    assert_eq!((case.record.reaccepted.len(), case.record.generation), (0, generation + 1));
    assert!(case.notes.contains(&Note::ReacceptOver { kid: kid("x") }));
    case.keystore_is_right();
    assert_eq!(case.record.kept, case.record.generation, "and the keystore is told");
}

#[test]
fn the_shell_is_woken_for_the_next_thing_that_is_due() {
    let case = Case::idle();
    assert_eq!(wake_in(&case.record, &case.volatile), None, "idle, nothing to do");
    let mut case = Case::push();
    case.keystore_is_right();
    assert_eq!(wake_in(&case.record, &case.volatile), Some(5_000), "the consumer's refresh");
    let mut case = Case::drain();
    assert_eq!(wake_in(&case.record, &case.volatile), Some(10_000), "to bank credit");
    case.pass(4_000);
    assert_eq!(wake_in(&case.record, &case.volatile), Some(6_000));
    let mut case = Case::idle();
    case.record.open = vec![Open { kid: kid("x"), left: 3_000 }];
    assert_eq!(wake_in(&case.record, &case.volatile), Some(3_000), "a quarantine runs also while idle");
    let mut case = Case::sent();
    case.answer(PatchAnswer::Ambiguous { wait: 0 });
    assert_eq!(wake_in(&case.record, &case.volatile), Some(5_000), "the next try");
}

#[test]
fn a_shorter_quarantine_or_drain_does_not_shorten_what_runs() {
    let mut case = Case::drain();
    let quicker = Policy { quarantine: 1, drain: 1, repeat_max: 77, ..policy() };
    case.take(Event::Boot { policy: quicker, identity: 1, restored: false, dark: 0 });
    assert_eq!((case.record.policy.quarantine, case.record.policy.drain, case.record.policy.repeat_max), (Q, D, 77));
    let longer = Policy { quarantine: 2 * Q, drain: 2 * D, slots: Some(3), ..policy() };
    case.take(Event::Boot { policy: longer, identity: 1, restored: false, dark: 0 });
    assert_eq!((case.record.policy.quarantine, case.record.policy.drain, case.record.policy.slots), (2 * Q, 2 * D, Some(3)));
    let mut case = Case::idle();
    case.take(Event::Boot { policy: quicker, identity: 9, restored: false, dark: 0 });
    assert_eq!((case.record.policy, case.record.identity, case.phase()), (quicker, 9, "idle"));
}

#[test]
fn the_shell_is_woken_to_read_the_keystore_again_and_for_the_span_of_evidence() {
    let mut case = Case::idle();
    let call = case.keystore_call();
    case.take(Event::KeystoreFailed { call });
    assert_eq!(wake_in(&case.record, &case.volatile), Some(1_000), "while idle too");

    let mut case = Case::with(Policy { min_span: 60_000, ..policy() });
    case.op(rotate("y"));
    case.prove();
    case.send();
    case.answer(PatchAnswer::Applied);
    assert_eq!(wake_in(&case.record, &case.volatile), Some(10_000), "the span has not begun");
    case.see(delivery("y"));
    assert_eq!((case.phase(), wake_in(&case.record, &case.volatile)), ("patch", Some(6_000)));
    case.pass(57_000);
    assert_eq!(wake_in(&case.record, &case.volatile), Some(3_000));
    case.pass(3_000);
    assert_eq!((case.phase(), wake_in(&case.record, &case.volatile)), ("patch", Some(10_000)), "only a delivery is missing");
}

#[test]
fn the_shell_is_woken_for_the_credit_of_what_was_reaccepted_while_idle_and_of_a_target_that_was_sent_before() {
    let mut case = Case::idle();
    case.record.reaccepted = vec![Reaccepted { kid: kid("w"), left: 60_000 }];
    case.keystore_is_right();
    assert_eq!(wake_in(&case.record, &case.volatile), Some(10_000));
    case.op(rotate("y"));
    assert_eq!(wake_in(&case.record, &case.volatile), None, "in a rotation its time stands still");

    let mut case = Case::patch();
    case.pass(Q);
    case.op(Op::Rollback);
    assert_eq!(wake_in(&case.record, &case.volatile), Some(10_000), "old deliveries are waited out");
}

#[test]
fn nobody_is_woken_for_a_wait_that_is_over() {
    let mut case = Case::idle();
    case.keystore_is_right();
    assert_eq!(wake_in(&case.record, &case.volatile), None);
    let case = Case::reproving();
    assert_eq!(wake_in(&case.record, &case.volatile), Some(30_000), "but for the next look");
}
