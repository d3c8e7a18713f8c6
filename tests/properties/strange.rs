//! Records, memories and events without any sense: what a decoder may hand over, and what no daemon ever wrote.

use hookturn::{
    rotation::{
        Accrued, Cause, Current, Draining, Event, Found, Freshness, Hold, Inspection, KeystoreView, KidSet, Line, Millis,
        OnReject, Op, Open, Overfull, PatchAnswer, Patching, Phase, Policy, Reaccepted, Record, ReplicaId, Retired, Retry,
        Rotation, Seen, Shrinking, Timers, Verdict, Volatile, WebhookView,
    },
    secret::Kid,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

pub fn named(name: &str) -> Kid {
    Kid::parse(name).expect("a kid")
}

/// Few, so that they meet.
pub fn kid() -> impl Strategy<Value = Kid> + Clone {
    select(["a", "b", "c", "d", "e"].map(named).to_vec())
}

/// Lengths and counters: likely ones, and the ends of what a number can be.
pub fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![4 => 0..20u64, 2 => 0..200_000u64, 1 => select(vec![0, 1, u64::MAX, u64::MAX - 1, i64::MAX as u64, u64::MAX - 1000])]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..4u32, 1 => Just(u32::MAX)]
}

fn kids() -> impl Strategy<Value = KidSet> {
    vec(kid(), 0..4).prop_map(|kids| kids.into_iter().collect())
}

fn replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![3 => 0..3u16, 1 => Just(u16::MAX)].prop_map(ReplicaId)
}

pub fn verdict() -> impl Strategy<Value = Verdict> {
    use Verdict::{Accepts, DoesNotVerify, Inconclusive, Refuses, Unreachable};
    select(vec![Accepts, Refuses, Inconclusive, DoesNotVerify, Unreachable])
}

pub fn inspection() -> impl Strategy<Value = Inspection> {
    use Inspection::{Active, ApiKeyRefused, Gone, Inactive, Unreachable};
    select(vec![Active, Inactive, Gone, ApiKeyRefused, Unreachable])
}

pub fn answer() -> impl Strategy<Value = PatchAnswer> {
    use PatchAnswer::{Ambiguous, ApiKeyRefused, Applied, Limited, ValueRefused, WebhookGone};
    prop_oneof![
        3 => Just(Applied),
        1 => select(vec![ValueRefused, ApiKeyRefused, WebhookGone]),
        1 => number().prop_map(|wait| Limited { wait }),
        2 => number().prop_map(|wait| Ambiguous { wait }),
    ]
}

pub fn policy() -> impl Strategy<Value = Policy> {
    let lengths = (number(), number(), number(), number(), number(), number());
    let rules = (small(), option::of(prop_oneof![0..4u8, Just(u8::MAX)]), any::<bool>(), any::<bool>());
    (lengths, rules).prop_map(
        |((quarantine, drain, wait, repeat_min, repeat_max, min_span), (min_deliveries, slots, back, unproven))| {
            let on_reject = if back { OnReject::SwitchBack } else { OnReject::Hold };
            Policy { quarantine, drain, wait, repeat_min, repeat_max, min_deliveries, min_span, slots, on_reject, unproven }
        },
    )
}

fn cause() -> impl Strategy<Value = Cause> {
    select(vec![Cause::Schedule, Cause::Demand, Cause::Rollback, Cause::SwitchBack, Cause::Supersede])
}

fn rotation() -> impl Strategy<Value = Rotation> {
    (number(), kid(), cause(), any::<bool>(), prop_oneof![0..3u8, Just(u8::MAX)], kids()).prop_map(
        |(number, target, cause, compromised, losses, dropped)| Rotation { number, target, cause, compromised, losses, dropped },
    )
}

fn freshness() -> impl Strategy<Value = Freshness> {
    prop_oneof![Just(Freshness::Fresh), Just(Freshness::ForeignOpen), number().prop_map(|left| Freshness::Waiting { left })]
}

fn patching() -> impl Strategy<Value = Patching> {
    (freshness(), small(), number(), any::<[bool; 2]>(), small(), number()).prop_map(
        |(freshness, sent, doubt, [settled, answered], seen, span)| Patching {
            freshness,
            sent,
            doubt,
            settled,
            answered,
            seen,
            span,
        },
    )
}

fn shrinking() -> impl Strategy<Value = Shrinking> {
    (kids(), any::<bool>()).prop_map(|(removed, proven)| Shrinking { removed, proven })
}

fn phase() -> impl Strategy<Value = Phase> {
    let plain = prop_oneof![
        Just(Phase::Idle),
        rotation().prop_map(Phase::Push),
        (rotation(), patching()).prop_map(|(r, p)| Phase::Patch(r, p)),
        (rotation(), number(), any::<[bool; 2]>())
            .prop_map(|(r, left, [settled, proven])| Phase::Drain(r, Draining { left, settled, proven })),
        (rotation(), shrinking()).prop_map(|(r, s)| Phase::Retire(r, s)),
        (rotation(), shrinking()).prop_map(|(r, s)| Phase::Abort(r, s)),
    ];
    // Two deep: no core makes a hold in a hold, and none may fall over one.
    plain.prop_recursive(2, 4, 1, |inner| (hold(), inner).prop_map(|(hold, was)| Phase::Hold(hold, Box::new(was))))
}

fn hold() -> impl Strategy<Value = Hold> {
    select(Hold::ALL.to_vec())
}

pub fn record() -> impl Strategy<Value = Record> {
    let current = prop_oneof![Just(Current::Missing), Just(Current::Unknown), kid().prop_map(Current::Known)];
    let counters = [number().boxed(), number().boxed(), number().boxed(), number().boxed(), number().boxed(), number().boxed()];
    let lists = (
        kids(),
        vec((kid(), number()).prop_map(|(kid, left)| Reaccepted { kid, left }), 0..3),
        // By secret, as in a record of any origin: two of one secret are one.
        btree_map(kid(), number(), 0..4).prop_map(|open| open.into_iter().map(|(kid, left)| Open { kid, left }).collect()),
        vec((kid(), any::<bool>()).prop_map(|(kid, compromised)| Retired { kid, compromised }), 0..18),
    );
    (counters, policy(), current, lists, any::<[bool; 2]>(), phase()).prop_map(
        |([seq, identity, generation, kept, attempts, rotations], policy, current, lists, [confirmed, paused], phase)| {
            let (accepted, reaccepted, open, retired) = lists;
            Record {
                seq,
                policy,
                identity,
                current,
                confirmed,
                accepted,
                reaccepted,
                generation,
                kept,
                open,
                attempts,
                rotations,
                retired,
                paused,
                phase,
            }
        },
    )
}

pub fn volatile() -> impl Strategy<Value = Volatile> {
    let keystore = prop_oneof![
        Just(KeystoreView::Unknown),
        (number(), any::<bool>()).prop_map(|(call, last)| KeystoreView::Reading { call, last }),
        number().prop_map(|call| KeystoreView::Writing { call }),
        Just(KeystoreView::Confirmed),
    ];
    let line = prop_oneof![
        Just(Line::Free),
        number().prop_map(|call| Line::Connecting { call }),
        (number(), kid(), any::<bool>(), number()).prop_map(|(attempt, kid, alone, doubt)| Line::Sent {
            attempt,
            kid,
            alone,
            doubt
        }),
    ];
    let webhook = prop_oneof![
        Just(WebhookView::Unknown),
        number().prop_map(|call| WebhookView::Asking { call }),
        inspection().prop_map(WebhookView::Known),
    ];
    let retry = || (number(), number()).prop_map(|(left, step)| Retry { left, step });
    let timers = (number(), number(), retry(), retry(), retry(), retry()).prop_map(
        |(wait, look, keystore_retry, ask_retry, line_retry, webhook_retry)| Timers {
            wait,
            look,
            keystore_retry,
            ask_retry,
            line_retry,
            webhook_retry,
        },
    );
    let replicas = (vec(replica(), 0..4), vec((replica(), verdict()), 0..4), option::of(number()));
    let known = (prop_oneof![8 => Just(true), 1 => Just(false)], number(), (number(), number()), any::<[bool; 2]>());
    let keystore =
        (keystore, option::weighted(0.2, (kids(), any::<bool>()).prop_map(|(there, settle)| Overfull { there, settle })));
    (known, keystore, replicas, line, webhook, timers).prop_map(
        |(
            (booted, calls, (elapsed, observed), [reread, reproving]),
            (keystore, overfull),
            (roster, verdicts, asking),
            line,
            webhook,
            timers,
        )| {
            Volatile {
                booted,
                calls,
                accrued: Accrued { elapsed, observed },
                keystore,
                overfull,
                roster,
                verdicts,
                reread,
                asking,
                line,
                webhook,
                reproving,
                timers,
            }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (option::of(kid()), option::of(number()), any::<bool>()).prop_map(|(kid, generation, replace)| Op::Adopt {
            kid,
            generation,
            replace
        }),
        (kid(), cause(), any::<bool>(), any::<bool>()).prop_map(|(fresh, cause, compromised, unconfirmed)| Op::Rotate {
            fresh,
            cause,
            compromised,
            unconfirmed
        }),
        select(vec![Op::Compromise, Op::Abort, Op::Rollback, Op::Pause, Op::Resume]),
        kid().prop_map(|fresh| Op::Supersede { fresh }),
        (kid(), number()).prop_map(|(kid, credit)| Op::Reaccept { kid, credit }),
    ]
}

pub fn event() -> impl Strategy<Value = Event> {
    let found = (number(), kids(), kids(), any::<bool>()).prop_map(|(generation, kids, strangers, opaque)| Found {
        generation,
        kids,
        strangers,
        opaque,
    });
    prop_oneof![
        (policy(), number(), any::<bool>(), number()).prop_map(|(policy, identity, restored, dark)| Event::Boot {
            policy,
            identity,
            restored,
            dark
        }),
        (number(), number()).prop_map(|(elapsed, observed)| Event::Tick { elapsed, observed }),
        vec(replica(), 0..4).prop_map(|replicas| Event::Roster { replicas }),
        op().prop_map(Event::Op),
        (number(), found).prop_map(|(call, found)| Event::Keystore { call, found }),
        number().prop_map(|call| Event::KeystoreFailed { call }),
        Just(Event::KeystoreDoubted),
        (number(), replica(), verdict()).prop_map(|(round, replica, verdict)| Event::Replica { round, replica, verdict }),
        number().prop_map(|round| Event::RoundEnded { round }),
        (number(), inspection()).prop_map(|(call, answer)| Event::Webhook { call, answer }),
        number().prop_map(|call| Event::Connected { call }),
        number().prop_map(|call| Event::ConnectFailed { call }),
        (number(), answer()).prop_map(|(attempt, answer)| Event::Patched { attempt, answer }),
        (kid(), any::<[bool; 2]>(), option::of(any::<bool>())).prop_map(|(kid, [new_body, probe], accepted)| Event::Seen(Seen {
            kid,
            new_body,
            probe,
            accepted
        })),
    ]
}

/// An event that the memory is waiting for, where one can be: nonsense alone would mostly be dropped as stale.
pub fn answered(volatile: &Volatile, event: Event) -> Event {
    match (event, volatile.keystore, volatile.line, volatile.webhook) {
        (Event::Keystore { found, .. }, KeystoreView::Reading { call, .. } | KeystoreView::Writing { call }, ..) => {
            Event::Keystore { call, found }
        }
        (Event::Replica { replica, verdict, .. }, ..) if volatile.asking.is_some() => {
            Event::Replica { round: volatile.asking.unwrap_or(0), replica, verdict }
        }
        (Event::RoundEnded { .. }, ..) if volatile.asking.is_some() => Event::RoundEnded { round: volatile.asking.unwrap_or(0) },
        (Event::Connected { .. }, _, Line::Connecting { call }, _) => Event::Connected { call },
        (Event::Patched { answer, .. }, _, Line::Sent { attempt, .. }, _) => Event::Patched { attempt, answer },
        (Event::Webhook { answer, .. }, _, _, WebhookView::Asking { call }) => Event::Webhook { call, answer },
        (event, ..) => event,
    }
}

/// Half an hour of milliseconds: what a tick in an ordinary life may bring.
pub fn a_while() -> impl Strategy<Value = Millis> + Clone {
    prop_oneof![3 => 0..2_000u64, 2 => 0..40_000u64, 1 => 0..1_800_000u64]
}
