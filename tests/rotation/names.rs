//! What people and the table of docs/protocol.md know things by.

use std::collections::BTreeSet;

use hookturn::rotation::{Event, Found, Hold, Inspection, KidSet, Op, PatchAnswer, Refused, ReplicaId, Verdict, Why};

use crate::case::{Case, delivery, kid, policy, rotate};

#[test]
fn events_and_wishes_have_names_of_their_own() {
    let found = Found { generation: 0, kids: KidSet::new(), strangers: KidSet::new(), opaque: false };
    let events = [
        Event::Boot { policy: policy(), identity: 1, restored: false, dark: 0 },
        Event::Tick { elapsed: 0, observed: 0 },
        Event::Roster { replicas: vec![] },
        Event::Keystore { call: 0, found },
        Event::KeystoreFailed { call: 0 },
        Event::Replica { round: 0, replica: ReplicaId(0), verdict: Verdict::Accepts },
        Event::RoundEnded { round: 0 },
        Event::Webhook { call: 0, answer: Inspection::Active },
        Event::Connected { call: 0 },
        Event::ConnectFailed { call: 0 },
        Event::Patched { attempt: 0, answer: PatchAnswer::Applied },
        Event::Seen(delivery("x")),
    ];
    let wishes = [
        Op::Adopt { kid: None, generation: None, replace: false },
        rotate("x"),
        Op::Compromise,
        Op::Abort,
        Op::Rollback,
        Op::Supersede { fresh: kid("x") },
        Op::Reaccept { kid: kid("x"), credit: 0 },
        Op::Pause,
        Op::Resume,
    ];
    let names: BTreeSet<&str> = events.iter().map(Event::name).chain(wishes.iter().map(Op::name)).collect();
    assert_eq!(names.len(), events.len() + wishes.len());
    assert!(names.contains("round-ended") && names.contains("supersede"), "{names:?}");
    assert_eq!(Event::Op(Op::Abort).name(), "abort");
}

#[test]
fn a_refusal_says_what_where_and_why() {
    let refused = Refused { phase: Case::drain().phase(), event: Op::Abort.name(), why: Why::AlreadySent };
    let said = refused.to_string();
    assert!(said.starts_with("abort is refused in phase drain: the target may already be with DialNexa"), "{said}");
}

#[test]
fn holds_have_the_names_of_their_pages() {
    let page = include_str!("../../docs/operations.md");
    let names: BTreeSet<&str> = Hold::ALL.into_iter().map(Hold::name).collect();
    assert_eq!(names.len(), Hold::ALL.len());
    assert!(names.iter().all(|name| page.contains(&format!("\n| `{name}` |"))), "{names:?}");
}
