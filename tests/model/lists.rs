//! The searches: which features together. Crashes, late and doubled PATCHes, lag and lost answers are in all of them.

use hookturn::rotation::OnReject;

use super::setup::{AGAIN_AND_AGAIN, Setup};

const P: fn(&'static str) -> Setup = Setup::plain;

/// What CI runs.
pub fn slice() -> Vec<Setup> {
    vec![
        Setup { abort: true, rollback: true, dark: true, drain: 2, ..P("rollback, abort") },
        Setup { emergency: true, rollback: true, abort: true, kids: 2, ..P("emergency") },
        Setup { supersede: true, abort: true, rollback: true, ..P("supersede") },
        Setup { rejects: true, kids: 2, quarantine: 1, ..P("refused by the consumer") },
        Setup {
            rejects: true,
            on_reject: OnReject::Hold,
            rollback: true,
            kids: 2,
            quarantine: 1,
            ..P("refused, on_reject hold")
        },
        Setup { refusals: true, kids: 2, quarantine: 1, ..P("refused by DialNexa") },
        Setup { lies: true, noise: true, rollback: true, kids: 2, ..P("every 200 is a lie, noise") },
        Setup { restore: true, abort: true, kids: 3, quarantine: 1, ..P("restored") },
        Setup { meddling: 1, looks: true, kids: 2, quarantine: 1, strays: 0, replicas: 1, ..P("keystore written by others") },
        Setup {
            meddling: AGAIN_AND_AGAIN,
            looks: true,
            kids: 2,
            quarantine: 1,
            strays: 0,
            replicas: 1,
            most_states: 300_000,
            partial: true,
            ..P("keystore written again and again")
        },
        Setup { strangers: 1, kids: 3, quarantine: 1, strays: 0, ..P("strangers in the keystore") },
        Setup { slots: Some(2), supersede: true, rollback: true, ..P("two slots") },
        Setup { slots: Some(2), restore: true, quarantine: 1, ..P("two slots, restored") },
        Setup { pause: true, reaccept: true, rollback: true, ..P("paused, reaccepted") },
        Setup { emergency: true, reaccept: true, rollback: true, kids: 2, quarantine: 1, replicas: 1, ..P("a leak, reaccepted") },
        Setup { churn: true, kids: 2, quarantine: 1, ..P("replicas come and go") },
        Setup { hands: 1, kids: 3, quarantine: 1, ..P("changed by hand") },
        Setup { drift: true, rollback: true, kids: 2, quarantine: 1, ..P("identity moves") },
        Setup { slots: Some(2), restore: true, unsure: true, quarantine: 1, ..P("two slots, restored, adopted unknown") },
        Setup { unknown: true, rollback: true, abort: true, emergency: true, kids: 3, ..P("adopted unknown") },
    ]
}

/// What the long mode adds.
pub fn long() -> Vec<Setup> {
    vec![
        Setup { abort: true, rollback: true, supersede: true, emergency: true, drain: 2, ..P("everything a person asks for") },
        Setup { replicas: 3, abort: true, rollback: true, supersede: true, ..P("three replicas") },
        Setup { rejects: true, supersede: true, rollback: true, quarantine: 1, ..P("refused by the consumer, superseded") },
        Setup { refusals: true, supersede: true, rollback: true, quarantine: 1, ..P("refused by DialNexa, superseded") },
        Setup { restore: true, rollback: true, supersede: true, abort: true, quarantine: 1, ..P("restored, superseded") },
        Setup { restore: true, emergency: true, rollback: true, quarantine: 1, ..P("restored, emergency") },
        // Not restored and written: a store and a keystore that are both put back have forgotten what nobody else knows.
        Setup {
            churn: true,
            rollback: true,
            abort: true,
            looks: true,
            replicas: 3,
            quarantine: 1,
            ..P("replicas come and go, looked at")
        },
        Setup {
            churn: true,
            meddling: 1,
            looks: true,
            kids: 2,
            quarantine: 1,
            strays: 0,
            ..P("replicas come and go, keystore written")
        },
        Setup { hands: 2, rollback: true, looks: true, quarantine: 1, ..P("changed by hand twice") },
        Setup { meddling: 2, looks: true, rollback: true, kids: 2, quarantine: 1, strays: 0, ..P("keystore written twice") },
        Setup { strangers: 2, supersede: true, quarantine: 1, strays: 0, ..P("two strangers") },
        Setup { slots: Some(2), strangers: 1, rollback: true, quarantine: 1, strays: 0, ..P("two slots and a stranger") },
        Setup {
            slots: Some(2),
            restore: true,
            supersede: true,
            rollback: true,
            abort: true,
            kids: 4,
            quarantine: 1,
            ..P("two slots, restored, superseded")
        },
        Setup { slots: Some(2), restore: true, emergency: true, quarantine: 1, ..P("two slots, restored, emergency") },
        Setup { slots: Some(2), restore: true, strangers: 1, quarantine: 1, strays: 0, ..P("two slots, restored, a stranger") },
        Setup { slots: Some(2), rejects: true, kids: 2, rollback: true, quarantine: 1, ..P("two slots, refused") },
        Setup { pause: true, emergency: true, supersede: true, kids: 3, quarantine: 1, ..P("paused, emergency") },
        Setup { lies: true, noise: true, rollback: true, supersede: true, looks: true, quarantine: 1, ..P("lies, superseded") },
    ]
}
