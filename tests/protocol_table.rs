//! docs/protocol.md shows what every phase makes of every event. This holds the table against the code.

use hookturn::{
    rotation::{
        Cause, Current, Effect, Event, Found, Hold, Inspection, KeystoreView, KidSet, OnReject, Op, PatchAnswer, Phase, Policy,
        Record, ReplicaId, Seen, Verdict, Volatile, WebhookView, step,
    },
    secret::Kid,
};

fn kid(name: &str) -> Kid {
    Kid::parse(name).expect("a kid")
}

fn policy() -> Policy {
    Policy {
        quarantine: 1000,
        drain: 1000,
        wait: 0,
        repeat_min: 10,
        repeat_max: 10_000,
        min_deliveries: 1,
        min_span: 0,
        slots: None,
        on_reject: OnReject::SwitchBack,
        unproven: false,
    }
}

/// A webhook being driven by hand.
struct Case {
    record: Record,
    volatile: Volatile,
}

impl Case {
    fn idle() -> Case {
        let mut record = Record::unadopted(policy(), 1);
        record.current = Current::Known(kid("x"));
        record.confirmed = true;
        record.accepted = [kid("x")].into_iter().collect();
        (record.generation, record.kept, record.seq) = (1, 1, 1);
        let mut case = Case { record, volatile: Volatile::default() };
        case.take(&Event::Boot { policy: policy(), identity: 1, restored: false, dark: 0 });
        case.take(&Event::Roster { replicas: vec![ReplicaId(0)] });
        case
    }

    fn take(&mut self, event: &Event) {
        let done = step(&self.record, &self.volatile, event).unwrap_or_else(|refused| panic!("{refused}"));
        (self.record, self.volatile) = (done.record, done.volatile);
    }

    fn keystore_as_it_should_be(&mut self) {
        let call = match self.volatile.keystore {
            KeystoreView::Reading { call, .. } | KeystoreView::Writing { call } => call,
            other => panic!("nothing was asked of the keystore: {other:?}"),
        };
        let found = Found {
            generation: self.record.generation,
            kids: self.record.keystore_kids(),
            strangers: KidSet::new(),
            opaque: false,
        };
        self.take(&Event::Keystore { call, found });
    }

    fn replica_accepts(&mut self) {
        let round = self.volatile.asking.expect("a round");
        self.take(&Event::Replica { round, replica: ReplicaId(0), verdict: Verdict::Accepts });
        self.take(&Event::RoundEnded { round });
        // The keystore has the last word.
        self.keystore_as_it_should_be();
    }

    fn push() -> Case {
        let mut case = Case::idle();
        case.take(&Event::Op(Op::Rotate { fresh: kid("y"), cause: Cause::Demand, compromised: false, unconfirmed: false }));
        case
    }

    fn patch() -> Case {
        let mut case = Case::push();
        case.keystore_as_it_should_be();
        case.replica_accepts();
        let call = case.volatile.calls;
        case.take(&Event::Connected { call });
        case
    }

    fn drain() -> Case {
        let mut case = Case::patch();
        case.take(&seen("y", None));
        case
    }

    fn retire() -> Case {
        let mut case = Case::drain();
        case.take(&Event::Patched { attempt: 1, answer: PatchAnswer::Applied });
        case.take(&Event::Tick { elapsed: 1000, observed: 1000 });
        case.keystore_as_it_should_be();
        if let WebhookView::Asking { call } = case.volatile.webhook {
            case.take(&Event::Webhook { call, answer: Inspection::Active });
        }
        case.replica_accepts();
        case
    }

    fn abort() -> Case {
        let mut case = Case::push();
        case.take(&Event::Op(Op::Abort));
        case
    }

    fn hold() -> Case {
        let mut case = Case::patch();
        case.take(&Event::Patched { attempt: 1, answer: PatchAnswer::WebhookGone });
        case
    }
}

fn seen(name: &str, accepted: Option<bool>) -> Event {
    Event::Seen(Seen { kid: kid(name), new_body: true, probe: false, accepted })
}

/// What people and the world can bring about, in the words of the page.
fn events() -> Vec<(&'static str, Event)> {
    let rotate = Op::Rotate { fresh: kid("z"), cause: Cause::Demand, compromised: false, unconfirmed: false };
    vec![
        ("rotate", Event::Op(rotate)),
        ("supersede", Event::Op(Op::Supersede { fresh: kid("z") })),
        ("abort", Event::Op(Op::Abort)),
        ("rollback", Event::Op(Op::Rollback)),
        ("compromise", Event::Op(Op::Compromise)),
        ("resume", Event::Op(Op::Resume)),
        ("pause", Event::Op(Op::Pause)),
        ("adopt", Event::Op(Op::Adopt { kid: Some(kid("m")), generation: None, replace: false })),
        ("reaccept", Event::Op(Op::Reaccept { kid: kid("m"), credit: 1 })),
        ("delivery under the target", seen("y", None)),
        ("delivery under the previous", seen("x", None)),
        ("target refused by the consumer", seen("y", Some(false))),
        ("restored store", Event::Boot { policy: policy(), identity: 1, restored: true, dark: 0 }),
        ("another identity", Event::Boot { policy: policy(), identity: 2, restored: false, dark: 0 }),
    ]
}

fn outcome(case: &Case, event: &Event) -> String {
    match step(&case.record, &case.volatile, event) {
        Err(_) => "refused".to_owned(),
        Ok(done) if done.record.phase.name() != case.record.phase.name() => match &done.record.phase {
            Phase::Hold(hold, _) => format!("hold: {}", hold.name()),
            phase => phase.name().to_owned(),
        },
        Ok(done) if done.record != case.record => "noted".to_owned(),
        Ok(_) => "-".to_owned(),
    }
}

#[test]
fn also_while_idle_a_keystore_that_was_written_before_is_read_once_in_each_life_and_put_right() {
    let mut case = Case::idle();
    let KeystoreView::Reading { call, .. } = case.volatile.keystore else { panic!("{:?}", case.volatile.keystore) };
    let older = Found { generation: 0, kids: KidSet::new(), strangers: KidSet::new(), opaque: false };
    let done = step(&case.record, &case.volatile, &Event::Keystore { call, found: older }).expect("taken");
    assert!(done.effects.iter().any(|effect| matches!(effect, Effect::WriteKeystore { generation: 2, .. })), "{done:?}");
    assert_eq!(done.record.phase, Phase::Idle);
    case.keystore_as_it_should_be();
    let again = step(&case.record, &case.volatile, &Event::Tick { elapsed: 3_600_000, observed: 0 }).expect("taken");
    assert!(again.effects.is_empty(), "{again:?}");
}

#[test]
fn the_table_of_the_page_is_what_the_code_does() {
    let cases = [
        ("idle", Case::idle()),
        ("push", Case::push()),
        ("patch", Case::patch()),
        ("drain", Case::drain()),
        ("retire", Case::retire()),
        ("abort", Case::abort()),
        ("hold", Case::hold()),
    ];
    for (name, case) in &cases {
        assert_eq!(case.record.phase.name(), *name, "the case is not what it is called");
    }
    let mut table = format!("| event | {} |\n", cases.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(cases.len())));
    for (name, event) in events() {
        let row: Vec<String> = cases.iter().map(|(_, case)| outcome(case, &event)).collect();
        table.push_str(&format!("| {name} | {} |\n", row.join(" | ")));
    }
    let page = include_str!("../docs/protocol.md");
    assert!(page.contains(&table), "docs/protocol.md should hold this table:\n\n{table}");
}

/// Whoever undoes a write before it can be read back is somebody else at the keystore, like one who comes later.
#[test]
fn a_write_that_is_undone_in_the_same_moment_is_a_loss_and_the_second_one_a_hold() {
    for robots_number in [|_| 1, |ours: u64| ours + 1] {
        let mut case = Case::push();
        for loss in 1..=2 {
            let KeystoreView::Writing { call } = case.volatile.keystore else { panic!("{:?}", case.volatile.keystore) };
            let kids = [kid("x")].into_iter().collect();
            let generation = robots_number(case.record.generation);
            let found = Found { generation, kids, strangers: KidSet::new(), opaque: false };
            case.take(&Event::Keystore { call, found });
            assert_eq!(case.record.phase.rotation().map(|rotation| rotation.losses), Some(loss));
            assert!(case.record.generation > generation, "the next write would be taken for an older one");
            case.take(&Event::Tick { elapsed: 60_000, observed: 60_000 });
        }
        assert!(matches!(case.record.phase, Phase::Hold(Hold::KeystoreContested, _)), "{}", case.record.phase.name());
    }
}
