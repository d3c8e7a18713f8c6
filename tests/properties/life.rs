//! A webhook in a world that mostly does as it should, driven by a list of acts that proptest can shorten.

use hookturn::{
    rotation::{
        Cause, Effect, Entry, Event, Found, Hold, Inspection, KidSet, OnReject, Op, PatchAnswer, Phase, Policy, Record, Recorder,
        ReplicaId, Seen, Step, Verdict, Volatile, step, wake_in,
    },
    secret::Kid,
};
use proptest::{collection::vec, option, prelude::*};

use crate::{
    laws::{self, Turn},
    strange::{a_while, answer, inspection, named, verdict},
};

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Act {
    /// Everything that was asked is answered well, time goes by, and a delivery comes: the short way through a rotation.
    Go,
    /// The next question is answered, in one way or another.
    Answer(Mood),
    /// An answer is lost with its question, as in no real daemon.
    Lose,
    /// Time goes by, with the doors open or not.
    Tick {
        elapsed: u64,
        open: bool,
    },
    /// As much time as the core asks to be woken after.
    Wake,
    Seen {
        whose: Whose,
        new_body: bool,
        probe: bool,
        accepted: Option<bool>,
    },
    Ask(Want),
    /// The process dies and another begins.
    Crash {
        restored: bool,
        moved: bool,
        dark: u64,
    },
    Roster(u16),
    /// Somebody else writes the keystore: an older content, a key of their own, or nothing at all.
    Meddle(Meddling),
}

#[derive(Debug, Clone)]
pub enum Mood {
    Well,
    Fails,
    Verdict(Verdict),
    Patch(PatchAnswer),
    Inspected(Inspection),
}

#[derive(Debug, Clone, Copy)]
pub enum Whose {
    Target,
    Current,
    /// One of the accepted or retired.
    Other(usize),
}

#[derive(Debug, Clone)]
pub enum Want {
    Rotate {
        compromised: bool,
    },
    Compromise,
    Abort,
    Rollback,
    Supersede,
    Reaccept {
        which: usize,
        credit: u64,
    },
    Pause,
    Resume,
    Adopt,
    AdoptUnknown,
    /// A person reduced the keystore to one secret and hands that over.
    AdoptAlone,
}

#[derive(Debug, Clone, Copy)]
pub enum Meddling {
    Older,
    Stranger,
    Opaque,
    Gone,
    Ahead,
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    vec(act(), 1..120)
}

fn act() -> impl Strategy<Value = Act> {
    let whose = prop_oneof![3 => Just(Whose::Target), 2 => Just(Whose::Current), 1 => (0..6usize).prop_map(Whose::Other)];
    prop_oneof![
        8 => Just(Act::Go),
        6 => mood().prop_map(Act::Answer),
        1 => Just(Act::Lose),
        3 => (a_while(), prop_oneof![4 => Just(true), 1 => Just(false)]).prop_map(|(elapsed, open)| Act::Tick { elapsed, open }),
        3 => Just(Act::Wake),
        4 => (whose, any::<bool>(), prop_oneof![6 => Just(false), 1 => Just(true)], option::of(prop_oneof![3 => Just(true), 1 => Just(false)]))
            .prop_map(|(whose, new_body, probe, accepted)| Act::Seen { whose, new_body, probe, accepted }),
        4 => want().prop_map(Act::Ask),
        1 => (prop_oneof![4 => Just(false), 1 => Just(true)], prop_oneof![6 => Just(false), 1 => Just(true)], a_while())
            .prop_map(|(restored, moved, dark)| Act::Crash { restored, moved, dark }),
        1 => (0..4u16).prop_map(Act::Roster),
        1 => prop_oneof![Just(Meddling::Older), Just(Meddling::Stranger), Just(Meddling::Opaque), Just(Meddling::Gone), Just(Meddling::Ahead)]
            .prop_map(Act::Meddle),
    ]
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        5 => Just(Mood::Well),
        1 => Just(Mood::Fails),
        1 => verdict().prop_map(Mood::Verdict),
        2 => answer().prop_map(Mood::Patch),
        1 => inspection().prop_map(Mood::Inspected),
    ]
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![
        6 => prop_oneof![4 => Just(false), 1 => Just(true)].prop_map(|compromised| Want::Rotate { compromised }),
        1 => Just(Want::Compromise),
        1 => Just(Want::Abort),
        2 => Just(Want::Rollback),
        2 => Just(Want::Supersede),
        1 => (0..16usize, a_while()).prop_map(|(which, credit)| Want::Reaccept { which, credit }),
        1 => Just(Want::Pause),
        3 => Just(Want::Resume),
        1 => Just(Want::Adopt),
        1 => Just(Want::AdoptUnknown),
        1 => Just(Want::AdoptAlone),
    ]
}

/// Timings that acts can get through.
pub fn policies() -> impl Strategy<Value = Policy> {
    let lengths = (1_000..60_000u64, 1_000..120_000u64, 0..5_000u64);
    (lengths, 1..3u32, 0..2_000u64, option::weighted(0.3, 2..4u8), any::<bool>(), prop_oneof![4 => Just(false), 1 => Just(true)])
        .prop_map(|((quarantine, drain, wait), min_deliveries, min_span, slots, back, unproven)| Policy {
            quarantine,
            drain,
            wait,
            repeat_min: 500,
            repeat_max: 20_000,
            min_deliveries,
            min_span,
            slots,
            on_reject: if back { OnReject::SwitchBack } else { OnReject::Hold },
            unproven,
        })
}

pub struct Life {
    pub record: Record,
    pub volatile: Volatile,
    pub policy: Policy,
    /// What the log has so far, as a store would.
    pub log: Vec<Entry>,
    /// The first law that was broken, and where.
    pub broken: Option<String>,
    pub phases: Vec<&'static str>,
    recorder: Recorder,
    asked: Vec<Effect>,
    keystore: Found,
    written_before: Found,
    /// The line is open: what the next PATCH answer is about.
    fresh: u32,
    identity: u64,
}

impl Life {
    /// A webhook whose secret was adopted and confirmed, in its first process.
    pub fn adopted(policy: Policy) -> Life {
        let record = Record::unadopted(policy, 1);
        let nothing = Found { generation: 0, kids: KidSet::new(), strangers: KidSet::new(), opaque: false };
        let mut life = Life {
            recorder: Recorder::begin(&record),
            record,
            volatile: Volatile::default(),
            policy,
            log: Vec::new(),
            broken: None,
            phases: Vec::new(),
            asked: Vec::new(),
            keystore: nothing.clone(),
            written_before: nothing,
            fresh: 0,
            identity: 1,
        };
        life.boot(false, 0);
        life.take(Event::Op(Op::Adopt { kid: Some(named("k0")), generation: None, replace: false }));
        for _ in 0..4 {
            life.go();
        }
        life
    }

    /// Takes the event, if the core does, and holds every law over what came of it.
    pub fn take(&mut self, event: Event) {
        let stale = self.stale_answers();
        let Ok(done) = step(&self.record, &self.volatile, &event) else { return };
        let turn = Turn { record: &self.record, volatile: &self.volatile, event: &event, step: &done };
        if let Err(broken) = laws::in_a_life(&turn) {
            let (before, after) = ((&self.record, &self.volatile), &done.record);
            self.broken.get_or_insert(format!("{broken}\nevent: {event:?}\nbefore: {before:#?}\nafter: {after:#?}"));
        }
        if !matches!(event, Event::Boot { .. }) {
            self.stale_is_as_if_nothing_happened(stale);
        }
        let Step { record, volatile, effects, .. } = done;
        let before = (std::mem::replace(&mut self.record, record), std::mem::replace(&mut self.volatile, volatile));
        if before.0.phase.name() != self.record.phase.name() {
            self.phases.push(self.record.phase.name());
        }
        self.recorder.note(before.clone(), &event, &effects, (&self.record, &self.volatile));
        if before.0 != self.record {
            self.log.append(&mut self.recorder.hand_over());
        }
        self.asked.extend(effects);
        if wake_in(&self.record, &self.volatile) == Some(0) {
            self.broken.get_or_insert(format!("it asks to be woken at once, for ever: {:#?}", self.record));
        }
    }

    /// The log as a store has it after the last commit, and what was not committed yet.
    pub fn whole_log(&mut self) -> &[Entry] {
        self.log.append(&mut self.recorder.hand_over());
        &self.log
    }

    fn stale_answers(&self) -> Vec<Event> {
        let old = u64::MAX;
        vec![
            Event::Keystore { call: old, found: self.keystore.clone() },
            Event::KeystoreFailed { call: old },
            Event::Replica { round: old, replica: ReplicaId(0), verdict: Verdict::Refuses },
            Event::RoundEnded { round: old },
            Event::Webhook { call: old, answer: Inspection::Gone },
            Event::Connected { call: old },
            Event::ConnectFailed { call: old },
            Event::Patched { attempt: old, answer: PatchAnswer::ApiKeyRefused },
        ]
    }

    fn stale_is_as_if_nothing_happened(&mut self, stale: Vec<Event>) {
        let nothing = step(&self.record, &self.volatile, &Event::Tick { elapsed: 0, observed: 0 });
        for event in stale {
            if step(&self.record, &self.volatile, &event) != nothing {
                self.broken.get_or_insert(format!("{event:?} was given up and changes something: {:#?}", self.record));
            }
        }
    }

    pub fn act(&mut self, act: &Act) {
        match act {
            Act::Go => self.go(),
            Act::Answer(mood) => self.answer_next(mood),
            Act::Lose => drop(self.asked.pop()),
            Act::Tick { elapsed, open } => self.tick(*elapsed, *open),
            Act::Wake => {
                let wake = wake_in(&self.record, &self.volatile).unwrap_or(1_000);
                self.tick(wake, true);
            }
            Act::Seen { whose, new_body, probe, accepted } => {
                if let Some(kid) = self.kid_of(*whose) {
                    self.take(Event::Seen(Seen { kid, new_body: *new_body, probe: *probe, accepted: *accepted }));
                }
            }
            Act::Ask(want) => self.ask(want),
            Act::Crash { restored, moved, dark } => {
                self.asked.clear();
                self.identity = if *moved { self.identity + 1 } else { self.identity };
                self.recorder = Recorder::begin(&self.record);
                self.volatile = Volatile::default();
                self.boot(*restored, *dark);
            }
            Act::Roster(replicas) => self.take(Event::Roster { replicas: (0..*replicas).map(ReplicaId).collect() }),
            Act::Meddle(meddling) => self.meddle(*meddling),
        }
    }

    fn boot(&mut self, restored: bool, dark: u64) {
        self.take(Event::Boot { policy: self.policy, identity: self.identity, restored, dark });
        self.take(Event::Roster { replicas: vec![ReplicaId(0), ReplicaId(1)] });
    }

    /// One round in a world without faults.
    pub fn go(&mut self) {
        self.answer_all();
        self.tick(wake_in(&self.record, &self.volatile).unwrap_or(1_000), true);
        self.answer_all();
        if let Some(kid) = self.kid_of(Whose::Target).or_else(|| self.kid_of(Whose::Current)) {
            self.take(Event::Seen(Seen { kid, new_body: true, probe: false, accepted: Some(true) }));
        }
    }

    /// Answers lead to questions; they come long before the next thing that is waited for.
    fn answer_all(&mut self) {
        for _ in 0..20 {
            self.answer_next(&Mood::Well);
        }
    }

    fn tick(&mut self, elapsed: u64, open: bool) {
        self.take(Event::Tick { elapsed, observed: if open { elapsed } else { 0 } });
    }

    fn kid_of(&self, whose: Whose) -> Option<Kid> {
        match whose {
            Whose::Target => self.record.phase.rotation().map(|rotation| rotation.target),
            Whose::Current => self.record.current.kid(),
            Whose::Other(at) => {
                let all: Vec<Kid> = self.record.accepted.iter().chain(self.record.retired.iter().map(|r| r.kid)).collect();
                (!all.is_empty()).then(|| all[at % all.len()])
            }
        }
    }

    fn fresh(&mut self) -> Kid {
        self.fresh += 1;
        named(&format!("k{}", self.fresh))
    }

    fn ask(&mut self, want: &Want) {
        let op = match want {
            Want::Rotate { compromised } => {
                Op::Rotate { fresh: self.fresh(), cause: Cause::Demand, compromised: *compromised, unconfirmed: true }
            }
            Want::Compromise => Op::Compromise,
            Want::Abort => Op::Abort,
            Want::Rollback => Op::Rollback,
            Want::Supersede => Op::Supersede { fresh: self.fresh() },
            Want::Reaccept { which, credit } => match self.record.retired.get(*which) {
                Some(retired) => Op::Reaccept { kid: retired.kid, credit: *credit },
                None => return,
            },
            Want::Pause => Op::Pause,
            Want::Resume => Op::Resume,
            // As the daemon decides it: what never verified makes room.
            Want::Adopt => {
                let slots = self.policy.slots.map_or(usize::MAX, usize::from);
                let replace = !self.record.confirmed && self.record.accepted.len() + 2 > slots;
                Op::Adopt { kid: Some(self.fresh()), generation: None, replace }
            }
            Want::AdoptAlone => return self.adopt_alone(),
            Want::AdoptUnknown => Op::Adopt { kid: None, generation: None, replace: false },
        };
        self.take(Event::Op(op));
    }

    fn adopt_alone(&mut self) {
        let Some(kid) = self.kid_of(Whose::Current).or_else(|| self.record.accepted.iter().next()) else { return };
        self.keystore.kids = [kid].into_iter().collect();
        self.keystore.strangers = KidSet::new();
        // A file that a person wrote counts as the first.
        self.keystore.generation = self.keystore.generation.max(1);
        let generation = Some(self.keystore.generation);
        self.take(Event::Op(Op::Adopt { kid: Some(kid), generation, replace: false }));
    }

    fn answer_next(&mut self, mood: &Mood) {
        if self.asked.is_empty() {
            return;
        }
        let effect = self.asked.remove(0);
        match effect {
            Effect::WriteKeystore { call, generation, kids } => {
                if matches!(mood, Mood::Fails) {
                    return self.take(Event::KeystoreFailed { call });
                }
                if generation >= self.keystore.generation && !self.keystore.opaque {
                    self.written_before = std::mem::replace(
                        &mut self.keystore,
                        Found { generation, kids, strangers: KidSet::new(), opaque: false },
                    );
                }
                self.take(Event::Keystore { call, found: self.keystore.clone() });
                self.strangers_are_known();
            }
            Effect::ReadKeystore { call } => {
                if matches!(mood, Mood::Fails) {
                    return self.take(Event::KeystoreFailed { call });
                }
                self.take(Event::Keystore { call, found: self.keystore.clone() });
                self.strangers_are_known();
            }
            Effect::AskReplicas { round, whom, .. } => {
                let verdict = match mood {
                    Mood::Verdict(verdict) => *verdict,
                    Mood::Fails => Verdict::Unreachable,
                    _ => Verdict::Accepts,
                };
                for replica in whom {
                    self.take(Event::Replica { round, replica, verdict });
                }
                self.take(Event::RoundEnded { round });
            }
            Effect::InspectWebhook { call } => {
                let answer = match mood {
                    Mood::Inspected(answer) => *answer,
                    Mood::Fails => Inspection::Unreachable,
                    _ => Inspection::Active,
                };
                self.take(Event::Webhook { call, answer });
            }
            Effect::Connect { call } => match mood {
                Mood::Fails => self.take(Event::ConnectFailed { call }),
                _ => self.take(Event::Connected { call }),
            },
            Effect::SendPatch { attempt, .. } => {
                let answer = match mood {
                    Mood::Patch(answer) => *answer,
                    Mood::Fails => PatchAnswer::Ambiguous { wait: 0 },
                    _ => PatchAnswer::Applied,
                };
                self.take(Event::Patched { attempt, answer });
            }
        }
    }

    /// Once it is sealed in the store, a stranger is a key like any other.
    fn strangers_are_known(&mut self) {
        let known: KidSet = self.keystore.strangers.iter().filter(|kid| self.record.accepted.contains(*kid)).collect();
        self.keystore.kids = self.keystore.kids.union(&known);
        self.keystore.strangers = self.keystore.strangers.without(&known);
    }

    fn meddle(&mut self, meddling: Meddling) {
        match meddling {
            Meddling::Older => self.keystore = self.written_before.clone(),
            Meddling::Stranger => {
                let kid = self.fresh();
                self.keystore.strangers.insert(kid);
            }
            Meddling::Opaque => self.keystore.opaque = true,
            Meddling::Gone => {
                self.keystore = Found { generation: 0, kids: KidSet::new(), strangers: KidSet::new(), opaque: false }
            }
            Meddling::Ahead => self.keystore.generation += 5,
        }
        // A person cleans up behind the meddler before long.
        if !matches!(meddling, Meddling::Opaque) {
            self.keystore.opaque = false;
        }
    }

    /// A restart with the configuration as it was, out of every hold by the way that its page names, and on to the end.
    pub fn let_it_finish(&mut self) -> Result<(), String> {
        self.keystore.opaque = false;
        self.identity = self.record.identity;
        self.act(&Act::Crash { restored: false, moved: false, dark: 0 });
        for _ in 0..400 {
            if self.record.phase == Phase::Idle && self.record.kept == self.record.generation {
                return self.can_begin();
            }
            if self.record.paused {
                self.take(Event::Op(Op::Resume));
            }
            if let Phase::Hold(hold, _) = self.record.phase {
                if hold == Hold::KeystoreForeign {
                    // Its page says: take it out.
                    self.keystore.strangers = KidSet::new();
                }
                if self.volatile.overfull.is_some() {
                    // What deliveries come signed with belongs there, and for two there may be no room.
                    self.keystore.strangers = KidSet::new();
                    let belongs = self.kid_of(Whose::Target).or_else(|| self.kid_of(Whose::Current));
                    let belongs = belongs.or_else(|| self.record.accepted.iter().next());
                    self.keystore.kids = belongs.into_iter().collect();
                }
                self.take(Event::Op(Op::Resume));
                if matches!(self.record.phase, Phase::Hold(..)) {
                    // A restored store with keys from after it knows one way: forward.
                    let fresh = self.fresh();
                    self.take(Event::Op(Op::Supersede { fresh }));
                    let fresh = self.fresh();
                    self.take(Event::Op(Op::Rotate { fresh, cause: Cause::Demand, compromised: false, unconfirmed: true }));
                }
                if matches!(self.record.phase, Phase::Hold(..)) && self.volatile.overfull.is_none() {
                    self.adopt_alone();
                }
            }
            self.go();
        }
        Err(format!("it does not end: {:#?}\n{:#?}", self.record, self.volatile))
    }

    /// At rest a rotation can begin; where the keystore is full, once a person has taken the old secret out.
    fn can_begin(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            let fresh = self.fresh();
            self.take(Event::Op(Op::Rotate { fresh, cause: Cause::Demand, compromised: false, unconfirmed: true }));
            if self.record.phase != Phase::Idle {
                return Ok(());
            }
            self.take(Event::Op(Op::Resume));
            self.adopt_alone();
            self.go();
        }
        Err(format!("no rotation can begin: {:#?}", self.record))
    }
}
