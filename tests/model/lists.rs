//! The searches: which features together. Crashes, late and doubled PATCHes, lag and lost answers are in all of them.

use hookturn::rotation::OnReject;

use super::setup::Setup;

const P: fn(&'static str) -> Setup = Setup::plain;

/// What CI runs.
pub fn slice() -> Vec<Setup> {
    vec![
        Setup { abort: true, rollback: true, drain: 2, ..P("rollback, abort") },
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
        Setup { meddling: true, looks: true, kids: 2, quarantine: 1, strays: 0, replicas: 1, ..P("keystore written by others") },
        Setup { strangers: 1, kids: 3, quarantine: 1, strays: 0, ..P("strangers in the keystore") },
        Setup { slots: Some(2), supersede: true, rollback: true, ..P("two slots") },
        Setup { pause: true, reaccept: true, rollback: true, ..P("paused, reaccepted") },
        Setup { churn: true, kids: 2, quarantine: 1, ..P("replicas come and go") },
        Setup { hands: 1, kids: 3, quarantine: 1, ..P("changed by hand") },
        Setup { drift: true, rollback: true, kids: 2, quarantine: 1, ..P("identity moves") },
        Setup { unknown: true, rollback: true, abort: true, emergency: true, kids: 3, ..P("adopted unknown") },
    ]
}

/// What the long mode adds.
pub fn long() -> Vec<Setup> {
    Vec::new()
}
