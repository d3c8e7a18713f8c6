//! When a PATCH goes out, and when again.

use hookturn::rotation::{
    Effect, Event, Found, Freshness, Hold, Inspection, KeystoreView, Line, Note, OnReject, Op, PatchAnswer, Phase, Verdict,
};

use crate::case::{Case, D, Q, delivery, kid, kids, policy, rotate};

fn quiet_for(case: &mut Case, elapsed: u64) {
    case.pass(elapsed);
    assert_eq!(case.connecting(), None, "nothing is sent yet");
}

#[test]
fn nothing_is_sent_before_keystore_refresh_and_every_replica() {
    let mut case = Case::push();
    assert!(matches!(case.effects[..], [Effect::WriteKeystore { .. }]));
    case.keystore_is_right();
    assert_eq!(case.volatile.asking, None, "the consumer's refresh is waited for before it is asked");
    quiet_for(&mut case, 4_999);
    assert_eq!(case.volatile.asking, None);
    quiet_for(&mut case, 1);
    case.replica(0, Verdict::Accepts);
    assert_eq!(case.connecting(), None);
    case.replica(1, Verdict::Inconclusive);
    case.round_ends();
    assert_eq!(case.connecting(), None, "an answer that does not tell is no proof");
    case.pass(1_000);
    case.replica(1, Verdict::Accepts);
    case.round_ends();
    assert_eq!(case.connecting(), None, "the keystore has the last word");
    case.keystore_is_right();
    assert!(case.connecting().is_some());
}

#[test]
fn a_webhook_whose_replicas_cannot_tell_goes_on_only_where_that_was_accepted() {
    for (unproven, goes) in [(false, false), (true, true)] {
        for verdict in [Verdict::Inconclusive, Verdict::DoesNotVerify, Verdict::Refuses, Verdict::Unreachable] {
            let mut case = Case::with(hookturn::rotation::Policy { unproven, ..policy() });
            case.op(rotate("y"));
            case.keystore_is_right();
            case.pass(5_000);
            case.replica(0, Verdict::Accepts);
            case.replica(1, verdict);
            case.round_ends();
            if case.is_looking_last() {
                case.keystore_is_right();
            }
            assert_eq!(case.connecting().is_some(), goes && verdict == Verdict::Inconclusive, "{unproven} {verdict:?}");
        }
        let mut case = Case::with(hookturn::rotation::Policy { unproven, ..policy() });
        case.roster(&[]);
        case.op(rotate("y"));
        case.keystore_is_right();
        case.pass(5_000);
        if case.is_looking_last() {
            case.keystore_is_right();
        }
        assert_eq!(case.connecting().is_some(), goes, "no replicas at all");
    }
}

#[test]
fn a_replica_that_comes_while_connecting_is_proven_first() {
    let mut case = Case::push();
    case.prove();
    let call = case.connecting().expect("connecting");
    case.roster(&[0, 1, 2]);
    case.take(Event::Connected { call });
    assert_eq!((case.phase(), case.record.attempts), ("push", 0));
    assert_eq!(
        case.volatile.verdict(hookturn::rotation::ReplicaId(0)),
        Some(Verdict::Accepts),
        "the others need not answer again"
    );
}

#[test]
fn a_replica_that_went_is_proven_anew_when_it_comes_back() {
    let mut case = Case::push();
    case.prove();
    case.roster(&[0]);
    case.roster(&[1, 0, 0]);
    assert_eq!(case.volatile.roster.len(), 2);
    assert_eq!(case.volatile.verdict(hookturn::rotation::ReplicaId(1)), None);
    let call = case.connecting().expect("connecting");
    case.take(Event::Connected { call });
    assert_eq!(case.phase(), "push");
}

#[test]
fn a_connection_that_fails_is_tried_again_after_1_2_4_and_at_most_30_seconds() {
    let mut case = Case::push();
    case.prove();
    for wait in [1_000, 2_000, 4_000, 8_000, 16_000] {
        let call = case.connecting().expect("connecting");
        case.take(Event::ConnectFailed { call });
        quiet_for(&mut case, wait - 1);
        looks(&mut case);
        case.pass(1);
        looks(&mut case);
    }
    let call = case.connecting().expect("connecting");
    case.take(Event::ConnectFailed { call: call + 7 });
    assert_eq!(case.connecting(), Some(call), "an answer to another call is dropped");
    case.take(Event::ConnectFailed { call });
    assert_eq!(case.volatile.timers.line_retry.left, 30_000);
}

/// Lets what is looked at meanwhile be as it should.
fn looks(case: &mut Case) {
    for _ in 0..3 {
        if matches!(case.volatile.keystore, KeystoreView::Reading { .. }) {
            case.keystore_is_right();
        }
        if case.volatile.asking.is_some() {
            case.replicas_accept();
        }
    }
}

#[test]
fn without_a_clear_answer_it_is_repeated_after_repeat_min_doubling_up_to_ten_minutes() {
    let mut case = Case::sent();
    for wait in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000] {
        assert!(matches!(case.volatile.line, Line::Sent { .. }));
        case.answer(PatchAnswer::Ambiguous { wait: 0 });
        assert_eq!(case.volatile.timers.line_retry.left, wait);
        case.pass(wait - 1);
        looks(&mut case);
        assert_eq!(case.connecting(), None);
        case.pass(1);
        looks(&mut case);
        case.send();
    }
}

#[test]
fn dialnexa_may_ask_for_a_longer_wait_never_for_a_shorter() {
    for answer in [PatchAnswer::Ambiguous { wait: 77_000 }, PatchAnswer::Limited { wait: 77_000 }] {
        let mut case = Case::sent();
        case.answer(answer);
        assert_eq!(case.volatile.timers.line_retry.left, 77_000, "{answer:?}");
    }
    for answer in [PatchAnswer::Ambiguous { wait: 7 }, PatchAnswer::Limited { wait: 7 }] {
        let mut case = Case::sent();
        case.answer(answer);
        assert_eq!(case.volatile.timers.line_retry.left, 5_000, "{answer:?}");
    }
}

#[test]
fn a_200_from_before_a_strangers_key_came_lets_old_bodies_bring_nothing_forward() {
    let mut case = Case::patch();
    case.pass(30_000);
    case.keystore_finds(Found { strangers: kids(&["s"]), ..case.found() });
    let left = case.volatile.timers.line_retry.left;
    assert!(left > policy().repeat_min, "{left}");
    case.see(delivery("x"));
    assert_eq!((case.phase(), case.volatile.timers.line_retry.left), ("patch", left));
}

#[test]
fn a_wait_that_dialnexa_asks_for_is_not_cut_short_by_old_signatures() {
    for answer in [PatchAnswer::Limited { wait: 77_000 }, PatchAnswer::Ambiguous { wait: 77_000 }] {
        let mut case = Case::patch();
        case.see(delivery("x"));
        case.pass(case.volatile.timers.line_retry.left);
        looks(&mut case);
        case.send();
        case.answer(answer);
        case.see(delivery("x"));
        assert_eq!(case.volatile.timers.line_retry.left, 77_000, "{answer:?}");
    }
}

#[test]
fn after_a_200_it_is_repeated_rarely_and_sooner_while_new_bodies_come_signed_with_the_old_one() {
    let mut case = Case::patch();
    assert_eq!(case.volatile.timers.line_retry.left, policy().repeat_max);
    case.see(hookturn::rotation::Seen { new_body: false, ..delivery("x") });
    case.see(delivery("unheard-of"));
    case.see(hookturn::rotation::Seen { probe: true, ..delivery("x") });
    assert_eq!(case.volatile.timers.line_retry.left, policy().repeat_max, "old bodies, strangers and probes say nothing");
    for wait in [5_000, 10_000, 20_000] {
        case.see(delivery("x"));
        assert!(case.notes.contains(&Note::StillOld { kid: kid("x") }));
        assert_eq!(case.volatile.timers.line_retry.left, wait);
        case.see(delivery("x"));
        assert_eq!((case.volatile.timers.line_retry.left, case.notes.len()), (wait, 0), "once per answer");
        case.pass(wait);
        looks(&mut case);
        case.send();
        case.answer(PatchAnswer::Applied);
        assert_eq!(case.volatile.timers.line_retry.left, policy().repeat_max);
    }
}

#[test]
fn without_an_answer_old_bodies_bring_nothing_forward() {
    for (wait, left) in [(0, 5_000), (77_000, 77_000)] {
        let mut case = Case::sent();
        case.answer(PatchAnswer::Ambiguous { wait });
        case.see(delivery("x"));
        assert_eq!((case.volatile.timers.line_retry.left, case.notes.len()), (left, 0));
    }
}

#[test]
fn what_was_sent_beside_another_request_is_sent_again_as_rarely_as_ever_unless_a_secret_leaked() {
    let mut case = Case::patch();
    case.op(Op::Supersede { fresh: kid("z") });
    case.prove();
    case.send();
    case.pass(Q);
    case.answer(PatchAnswer::Applied);
    assert!(matches!(&case.record.phase, Phase::Patch(_, patching) if !patching.settled));
    assert_eq!(case.volatile.timers.line_retry.left, policy().repeat_max);

    let mut case = Case::patch();
    case.op(Op::Rollback);
    looks(&mut case);
    case.send();
    case.answer(PatchAnswer::Applied);
    case.pass(Q);
    assert!(matches!(&case.record.phase, Phase::Patch(_, patching) if patching.freshness == Freshness::Waiting { left: D }));
    assert_eq!(case.volatile.timers.line_retry.left, policy().repeat_max - Q);
}

#[test]
fn definite_refusals_call_a_person_unless_the_value_may_have_been_taken_before() {
    for (answer, hold) in [
        (PatchAnswer::ValueRefused, Hold::TargetRefused),
        (PatchAnswer::ApiKeyRefused, Hold::ApiKeyRefused),
        (PatchAnswer::WebhookGone, Hold::WebhookGone),
    ] {
        let mut case = Case::sent();
        case.answer(answer);
        assert_eq!(case.hold(), Some(hold));
        assert!(case.record.open.iter().any(|open| open.kid == kid("y")), "whatever the answer was, it may still land");
    }
    for first in [PatchAnswer::Ambiguous { wait: 0 }, PatchAnswer::Applied] {
        let mut case = Case::sent();
        case.answer(first);
        case.see(delivery("x"));
        case.pass(5_000);
        case.send();
        case.answer(PatchAnswer::ValueRefused);
        assert_eq!((case.hold(), case.phase()), (None, "patch"), "{first:?}");
        assert!(case.volatile.timers.line_retry.left >= 5_000);
    }
}

#[test]
fn a_value_that_is_refused_calls_a_person_once_no_attempt_before_can_have_been_applied() {
    let mut case = Case::sent();
    case.answer(PatchAnswer::Ambiguous { wait: 0 });
    for _ in 0..20 {
        let left = case.volatile.timers.line_retry.left;
        case.pass(left);
        looks(&mut case);
        case.send();
        case.pass(50_000);
        let doubt = doubt(&case);
        case.answer(PatchAnswer::ValueRefused);
        if case.hold().is_some() {
            break;
        }
        assert!(doubt == Q && self::doubt(&case) < Q, "each attempt is in doubt until it is refused");
    }
    assert_eq!((case.hold(), doubt(&case)), (Some(Hold::TargetRefused), 0));
    // A clear 200 says that it was taken: what is refused then may be that it is nothing new.
    let mut case = Case::patch();
    case.pass(Q);
    looks(&mut case);
    case.pass(policy().repeat_max);
    looks(&mut case);
    case.send();
    case.answer(PatchAnswer::ValueRefused);
    assert_eq!(case.hold(), None);
    // So may it be where a process died over an attempt.
    let mut case = Case::sent();
    case.boot();
    case.prove();
    case.send();
    case.answer(PatchAnswer::ValueRefused);
    assert_eq!(case.hold(), None);
}

fn doubt(case: &Case) -> u64 {
    match case.record.phase.underlying() {
        Phase::Patch(_, patching) => patching.doubt,
        other => panic!("not in patch: {other:?}"),
    }
}

#[test]
fn an_answer_to_another_attempt_or_a_late_one_is_dropped() {
    let mut case = Case::sent();
    let before = case.record.clone();
    case.take(Event::Patched { attempt: 7, answer: PatchAnswer::WebhookGone });
    assert_eq!(case.record, before);
    case.boot();
    case.take(Event::Patched { attempt: 1, answer: PatchAnswer::WebhookGone });
    assert_eq!(case.phase(), "patch");
}

#[test]
fn a_200_for_the_target_that_was_given_up_does_not_count_for_the_one_in_its_place() {
    let mut case = Case::sent();
    case.see(hookturn::rotation::Seen { accepted: Some(false), ..delivery("y") });
    assert_eq!((case.target(), case.phase()), (Some(kid("x")), "patch"));
    case.answer(PatchAnswer::Applied);
    assert_eq!(case.hold(), None, "the switch-back was not even sent");
    case.replicas_accept();
    case.send();
    assert!(case.effects.iter().any(|effect| matches!(effect, Effect::SendPatch { kid: sent, .. } if *sent == kid("x"))));
    case.answer(PatchAnswer::Applied);
    assert_eq!(case.hold(), Some(Hold::RejectedByConsumer));
}

#[test]
fn a_refusal_of_the_value_that_was_given_up_does_not_count_either() {
    let mut case = Case::sent();
    case.op(Op::Rollback);
    case.answer(PatchAnswer::ValueRefused);
    assert_eq!((case.hold(), case.target()), (None, Some(kid("x"))));
}

#[test]
fn a_rejection_switches_back_or_holds_as_configured() {
    let refused = || hookturn::rotation::Seen { accepted: Some(false), ..delivery("y") };
    let mut case = Case::patch();
    case.see(refused());
    assert_eq!((case.target(), case.hold()), (Some(kid("x")), None));
    assert!(case.volatile.timers.line_retry.due(), "at once");
    // A second rejection, of the secret that was switched back to: nothing is left to try.
    case.see(hookturn::rotation::Seen { accepted: Some(false), ..delivery("x") });
    assert_eq!(case.hold(), Some(Hold::RejectedByConsumer));

    let mut case = Case::with(hookturn::rotation::Policy { on_reject: OnReject::Hold, ..policy() });
    case.op(rotate("y"));
    case.prove();
    case.send();
    case.see(refused());
    assert_eq!((case.hold(), case.target()), (Some(Hold::RejectedByConsumer), Some(kid("y"))));

    // What leaked is not returned to.
    let mut case = Case::patch();
    case.op(Op::Compromise);
    case.see(refused());
    assert_eq!(case.hold(), Some(Hold::RejectedByConsumer));
    // Another key that the consumer refuses is not the target's fault.
    let mut case = Case::patch();
    case.see(hookturn::rotation::Seen { accepted: Some(false), ..delivery("x") });
    assert_eq!((case.hold(), case.target()), (None, Some(kid("y"))));
}

#[test]
fn after_a_switch_back_a_person_decides_and_then_it_is_an_ordinary_rollback() {
    let mut case = Case::drain();
    case.see(hookturn::rotation::Seen { accepted: Some(false), ..delivery("y") });
    case.pass(Q);
    looks(&mut case);
    case.pass(D);
    looks(&mut case);
    case.see(delivery("x"));
    assert_eq!(case.hold(), Some(Hold::RejectedByConsumer), "also once x was seen");
    case.op(Op::Resume);
    assert_eq!((case.hold(), case.phase()), (None, "drain"));
    assert_eq!(case.record.phase.rotation().map(|r| r.cause), Some(hookturn::rotation::Cause::Rollback));
}

#[test]
fn a_fresh_target_waits_for_open_attempts_unless_time_matters_more() {
    let after = |op: fn(&mut Case)| {
        let mut case = Case::retire();
        case.keystore_is_right();
        case.pass(5_000);
        case.replicas_accept();
        assert_eq!(case.phase(), "idle");
        case.record.open = vec![hookturn::rotation::Open { kid: kid("old"), left: 60_000 }];
        op(&mut case);
        case.prove();
        case
    };
    let mut case = after(|case| case.op(rotate("z")));
    assert_eq!(case.connecting(), None);
    case.pass(55_000);
    looks(&mut case);
    assert!(case.connecting().is_some(), "the quarantine is over");
    case.send();
    assert!(matches!(&case.record.phase, Phase::Patch(_, patching) if patching.freshness == Freshness::Fresh));
    let case = after(|case| {
        case.op(Op::Rotate { fresh: kid("z"), cause: hookturn::rotation::Cause::Demand, compromised: true, unconfirmed: false })
    });
    assert!(case.connecting().is_some(), "what leaked does not wait");
    let mut case = case;
    case.send();
    assert!(matches!(&case.record.phase, Phase::Patch(_, patching) if patching.freshness == Freshness::ForeignOpen));
}

#[test]
fn a_pause_sends_nothing_and_retires_nothing() {
    let mut case = Case::push();
    case.op(Op::Pause);
    case.prove();
    assert_eq!(case.connecting(), None);
    case.op(Op::Resume);
    assert!(case.connecting().is_some());

    let mut case = Case::drain();
    case.op(Op::Pause);
    case.pass(D);
    assert!(!case.volatile.reproving);
    case.op(Op::Resume);
    assert!(case.volatile.reproving);
}

#[test]
fn a_webhook_that_is_gone_is_not_retired_for_and_one_that_does_not_answer_is_asked_again() {
    let mut case = Case::reproving();
    case.inspected(Inspection::Unreachable);
    assert_eq!(case.volatile.timers.webhook_retry.left, 1_000);
    case.pass(1_000);
    case.inspected(Inspection::Inactive);
    assert!(case.notes.contains(&Note::WebhookInactive));
    assert_eq!(case.volatile.timers.webhook_retry.step, 0);
    for (answer, hold) in [(Inspection::Gone, Hold::WebhookGone), (Inspection::ApiKeyRefused, Hold::ApiKeyRefused)] {
        let mut case = Case::reproving();
        case.inspected(answer);
        assert_eq!(case.hold(), Some(hold));
    }
}
