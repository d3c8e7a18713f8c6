//! A webhook driven by hand.

use hookturn::{
    rotation::{
        Cause, Current, Effect, Event, Found, Hold, Inspection, KeystoreView, KidSet, Line, Note, OnReject, Op, PatchAnswer,
        Phase, Policy, Record, ReplicaId, Seen, Verdict, Volatile, WebhookView, Why, step,
    },
    secret::Kid,
};

pub const Q: u64 = 900_000;
pub const D: u64 = 3_600_000;

pub fn kid(name: &str) -> Kid {
    Kid::parse(name).expect("a kid")
}

pub fn kids(names: &[&str]) -> KidSet {
    names.iter().map(|name| kid(name)).collect()
}

pub fn policy() -> Policy {
    Policy {
        quarantine: Q,
        drain: D,
        wait: 5_000,
        repeat_min: 5_000,
        repeat_max: 21_600_000,
        min_deliveries: 1,
        min_span: 0,
        slots: None,
        on_reject: OnReject::SwitchBack,
        unproven: false,
    }
}

pub fn delivery(name: &str) -> Seen {
    Seen { kid: kid(name), new_body: true, probe: false, accepted: None }
}

pub fn rotate(name: &str) -> Op {
    Op::Rotate { fresh: kid(name), cause: Cause::Demand, compromised: false, unconfirmed: false }
}

pub struct Case {
    pub policy: Policy,
    pub record: Record,
    pub volatile: Volatile,
    /// What the last event led to.
    pub effects: Vec<Effect>,
    pub notes: Vec<Note>,
}

impl Case {
    pub fn idle() -> Case {
        Case::with(policy())
    }

    /// Idle, adopted with x and confirmed, two replicas.
    pub fn with(policy: Policy) -> Case {
        let mut record = Record::unadopted(policy, 1);
        record.current = Current::Known(kid("x"));
        record.confirmed = true;
        record.accepted = kids(&["x"]);
        (record.generation, record.kept, record.seq) = (1, 1, 1);
        let mut case = Case { policy, record, volatile: Volatile::default(), effects: vec![], notes: vec![] };
        case.boot();
        case
    }

    pub fn boot(&mut self) {
        let policy = self.policy;
        self.take(Event::Boot { policy, identity: 1, restored: false, dark: 0 });
        self.roster(&[0, 1]);
    }

    pub fn roster(&mut self, replicas: &[u16]) {
        self.take(Event::Roster { replicas: replicas.iter().map(|r| ReplicaId(*r)).collect() });
    }

    pub fn take(&mut self, event: Event) {
        let done = step(&self.record, &self.volatile, &event).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(done.record.seq == self.record.seq + u64::from(done.record != self.record), "seq rises with a change only");
        (self.record, self.volatile) = (done.record, done.volatile);
        (self.effects, self.notes) = (done.effects, done.notes);
    }

    pub fn op(&mut self, op: Op) {
        self.take(Event::Op(op));
    }

    pub fn refused(&self, op: Op) -> Why {
        step(&self.record, &self.volatile, &Event::Op(op)).expect_err("it should be refused").why
    }

    pub fn pass(&mut self, elapsed: u64) {
        self.take(Event::Tick { elapsed, observed: elapsed });
    }

    pub fn see(&mut self, seen: Seen) {
        self.take(Event::Seen(seen));
    }

    pub fn found(&self) -> Found {
        Found { generation: self.record.generation, kids: self.record.keystore_kids(), strangers: KidSet::new(), opaque: false }
    }

    pub fn keystore_call(&self) -> u64 {
        match self.volatile.keystore {
            KeystoreView::Reading { call, .. } | KeystoreView::Writing { call } => call,
            other => panic!("nothing was asked of the keystore: {other:?}"),
        }
    }

    pub fn keystore_finds(&mut self, found: Found) {
        let call = self.keystore_call();
        self.take(Event::Keystore { call, found });
    }

    pub fn keystore_is_right(&mut self) {
        self.keystore_finds(self.found());
    }

    pub fn replica(&mut self, replica: u16, verdict: Verdict) {
        let round = self.volatile.asking.expect("a round");
        self.take(Event::Replica { round, replica: ReplicaId(replica), verdict });
    }

    pub fn round_ends(&mut self) {
        let round = self.volatile.asking.expect("a round");
        self.take(Event::RoundEnded { round });
    }

    pub fn replicas_accept(&mut self) {
        let round = self.volatile.asking;
        let (mut effects, mut notes) = (vec![], vec![]);
        for id in self.volatile.roster.clone() {
            self.replica(id.0, Verdict::Accepts);
            effects.append(&mut self.effects);
            notes.append(&mut self.notes);
        }
        // The last proof may have ended the phase, and the round with it.
        if self.volatile.asking == round {
            self.round_ends();
        }
        effects.append(&mut self.effects);
        notes.append(&mut self.notes);
        // The keystore has the last word.
        if self.is_looking_last() {
            self.keystore_is_right();
            effects.append(&mut self.effects);
            notes.append(&mut self.notes);
        }
        (self.effects, self.notes) = (effects, notes);
    }

    /// Both replicas, and nothing after them.
    pub fn both_accept(&mut self) {
        self.replica(0, Verdict::Accepts);
        self.replica(1, Verdict::Accepts);
        self.round_ends();
    }

    /// The keystore is being read once more after the last proof.
    pub fn is_looking_last(&self) -> bool {
        matches!(self.volatile.keystore, KeystoreView::Reading { last: true, .. })
    }

    /// The keystore has what it should, the consumer's refresh is over, and every replica says so.
    pub fn prove(&mut self) {
        self.keystore_is_right();
        if self.volatile.timers.wait > 0 {
            self.pass(self.policy.wait);
        }
        self.replicas_accept();
    }

    /// Somebody else put the older content back.
    pub fn keystore_is_older(&mut self) {
        let found = Found { generation: self.record.generation - 1, kids: kids(&["x"]), ..self.found() };
        self.keystore_finds(found);
    }

    pub fn connecting(&self) -> Option<u64> {
        match self.volatile.line {
            Line::Connecting { call } => Some(call),
            _ => None,
        }
    }

    pub fn send(&mut self) {
        let call = self.connecting().expect("a connection being opened");
        self.take(Event::Connected { call });
        assert!(self.effects.iter().any(|effect| matches!(effect, Effect::SendPatch { .. })), "it was sent");
    }

    pub fn answer(&mut self, answer: PatchAnswer) {
        let attempt = self.record.attempts;
        self.take(Event::Patched { attempt, answer });
    }

    pub fn inspected(&mut self, answer: Inspection) {
        let WebhookView::Asking { call } = self.volatile.webhook else { panic!("DialNexa was not asked") };
        self.take(Event::Webhook { call, answer });
    }

    pub fn push() -> Case {
        let mut case = Case::idle();
        case.op(rotate("y"));
        case
    }

    /// The PATCH with y is out.
    pub fn sent() -> Case {
        let mut case = Case::push();
        case.prove();
        case.send();
        case
    }

    pub fn patch() -> Case {
        let mut case = Case::sent();
        case.answer(PatchAnswer::Applied);
        case
    }

    pub fn drain() -> Case {
        let mut case = Case::patch();
        case.see(delivery("y"));
        case
    }

    /// Drained, and being proven once more.
    pub fn reproving() -> Case {
        let mut case = Case::drain();
        case.pass(D);
        case
    }

    pub fn retire() -> Case {
        let mut case = Case::reproving();
        case.keystore_is_right();
        case.inspected(Inspection::Active);
        case.replicas_accept();
        case
    }

    pub fn abort() -> Case {
        let mut case = Case::push();
        case.op(Op::Abort);
        case
    }

    pub fn restored() -> Case {
        let mut case = Case::patch();
        let policy = case.policy;
        case.take(Event::Boot { policy, identity: 1, restored: true, dark: 0 });
        case.roster(&[0, 1]);
        case
    }

    pub fn phase(&self) -> &'static str {
        self.record.phase.name()
    }

    pub fn hold(&self) -> Option<Hold> {
        match self.record.phase {
            Phase::Hold(hold, _) => Some(hold),
            _ => None,
        }
    }

    pub fn target(&self) -> Option<Kid> {
        self.record.phase.rotation().map(|rotation| rotation.target)
    }

    pub fn losses(&self) -> u8 {
        self.record.phase.rotation().expect("a rotation").losses
    }
}
