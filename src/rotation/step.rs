use super::mutants::{self, Mutant};
use super::time::{Settled, unread};
use super::volatile::KeystoreView;
use super::{Effect, Event, Hold, KidSet, Note, Phase, Record, ReplicaId, Rotation, Verdict, Volatile};
use crate::secret::Kid;

/// What an event leads to. The shell commits `record` where it changed, then runs the effects, in this order and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub record: Record,
    pub volatile: Volatile,
    pub effects: Vec<Effect>,
    pub notes: Vec<Note>,
}

/// An event that cannot be taken in this phase. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{event} is refused in phase {phase}: {why}")]
pub struct Refused {
    pub phase: &'static str,
    pub event: &'static str,
    pub why: Why,
}

/// Why an event was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    #[error("this process has not taken the webhook over yet")]
    NotBooted,
    #[error("no secret was adopted yet")]
    NotAdopted,
    #[error("no delivery has verified under the current secret yet")]
    Unconfirmed,
    #[error("a rotation is under way")]
    RotationUnderWay,
    #[error("no rotation is under way")]
    NoRotation,
    #[error("the webhook is paused")]
    Paused,
    #[error("the target may already be with DialNexa; only forward or a rollback is safe")]
    AlreadySent,
    #[error("the target was never sent: abort does it without a PATCH")]
    NeverSent,
    #[error("the previous secret is not known to hookturn")]
    NoWayBack,
    #[error("the secret was compromised")]
    Compromised,
    #[error("the retire has begun: the previous secret is on its way out")]
    Retiring,
    #[error("the keystore has no free slot")]
    SlotsFull,
    #[error("this key id was used before")]
    UsedKid,
    #[error("this key id was never retired here")]
    NotRetired,
    #[error("nothing is held or paused")]
    NotHeld,
    #[error("a backup was restored, and the keystore has not been brought up to date since; try again in a moment")]
    KeystoreUnread,
    #[error(
        "a backup was restored, and the keystore holds keys from after it: only a fresh secret tells what DialNexa signs with"
    )]
    OnlyForward,
    #[error(
        "a backup was restored, and its keys and those in the keystore are more than it has room for: resume keeps those in the keystore"
    )]
    Overfull,
    #[error(
        "a key that the keystore does not hold may still be with DialNexa (quarantine), or deliveries come signed with it; try again later"
    )]
    MayStillLand,
    #[error("the webhook's identity in the configuration is not the one that the rotation began with")]
    ConfigDrift,
}

/// How often keystore and replicas are looked at while a rotation is under way.
pub const LOOK_EVERY: u64 = 30_000;
/// The longest wait between two tries of anything but the PATCH.
pub(super) const RETRY_MOST: u64 = 30_000;
/// The longest wait between two PATCHes that got no clear answer.
pub(super) const BACKOFF_MOST: u64 = 600_000;
pub(super) const RETRY_FIRST: u64 = 1_000;

/// The transition function: total, deterministic, without side effects.
///
/// # Errors
/// [`Refused`] where the pair of phase and event makes no sense. Stale answers (of calls that were given up) are not
/// refused: they are dropped without a change.
pub fn step(record: &Record, volatile: &Volatile, event: &Event) -> Result<Step, Refused> {
    let mut core = Core { r: record.clone(), v: volatile.clone(), effects: Vec::new(), notes: Vec::new() };
    let refused = |why| Refused { phase: record.phase.name(), event: event.name(), why };
    if !core.v.booted && !matches!(event, Event::Boot { .. }) {
        return Err(refused(Why::NotBooted));
    }
    let credit = core.settle_credit(event);
    match event {
        Event::Boot { policy, identity, restored, .. } => core.boot(*policy, *identity, *restored),
        Event::Tick { .. } => {}
        Event::Roster { replicas } => core.roster(replicas),
        Event::Op(op) => core.operate(op).map_err(refused)?,
        Event::Keystore { call, found } => core.keystore_found(*call, found),
        Event::KeystoreFailed { call } => core.keystore_failed(*call),
        Event::KeystoreDoubted => core.doubt_keystore(),
        Event::Replica { round, replica, verdict } => core.replica_answered(*round, *replica, *verdict),
        Event::RoundEnded { round } => core.round_ended(*round),
        Event::Webhook { call, answer } => core.inspected(*call, *answer),
        Event::Connected { call } => core.connected(*call),
        Event::ConnectFailed { call } => core.connect_failed(*call),
        Event::Patched { attempt, answer } => core.patched(*attempt, *answer),
        Event::Seen(seen) => core.seen(seen),
    }
    core.plan();
    Ok(core.finish(record, credit))
}

/// A transition being worked out.
pub(super) struct Core {
    pub r: Record,
    pub v: Volatile,
    pub effects: Vec<Effect>,
    pub notes: Vec<Note>,
}

impl Core {
    /// Decides what comes next, until nothing more follows from what is known. Level-triggered: it looks at the state, not at
    /// the event, so a lost event can delay and never derail.
    fn plan(&mut self) {
        for _ in 0..8 {
            let before = std::mem::discriminant(&self.r.phase);
            match self.r.phase {
                Phase::Idle => self.plan_idle(),
                Phase::Push(..) => self.plan_push(),
                Phase::Patch(..) => self.plan_patch(),
                Phase::Drain(..) => self.plan_drain(),
                Phase::Retire(..) | Phase::Abort(..) => self.plan_shrink(),
                Phase::Hold(hold, _) => self.plan_hold(hold),
            }
            if std::mem::discriminant(&self.r.phase) == before {
                return;
            }
        }
    }

    /// A change is committed together with the credit gathered so far. Credit alone waits until a commit is worth it.
    fn finish(mut self, before: &Record, credit: Settled) -> Step {
        if credit.can_wait && self.r == credit.record {
            self.r = before.clone();
            self.v.accrued = credit.gathered;
        } else if self.r != *before {
            self.r.seq = before.seq.saturating_add(1);
        }
        Step { record: self.r, volatile: self.v, effects: self.effects, notes: self.notes }
    }

    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Stops for a person. Nothing is removed; what runs is let finish.
    pub fn hold(&mut self, hold: Hold) {
        if matches!(self.r.phase, Phase::Hold(..)) {
            return;
        }
        let was = std::mem::replace(&mut self.r.phase, Phase::Idle);
        self.r.phase = Phase::Hold(hold, Box::new(was));
        self.v.reproving = false;
        self.note(Note::Held { hold });
    }

    pub fn fits(&self, kids: usize) -> bool {
        self.r.policy.fits(kids)
    }

    fn plan_idle(&mut self) {
        if self.r.kept < self.r.generation || unread(&self.r, &self.v) {
            self.tend_keystore();
            self.keep();
        }
    }

    fn plan_hold(&mut self, hold: Hold) {
        match hold {
            Hold::KeystoreContested | Hold::KeystoreForeign => {}
            Hold::Restored => {
                self.tend_keystore();
                self.keep();
            }
            _ => self.plan_idle(),
        }
    }

    fn plan_push(&mut self) {
        if self.tend() && self.may_patch() {
            self.connect();
        }
    }

    fn plan_patch(&mut self) {
        self.freshen();
        if self.ready_to_retire() {
            return self.reprove();
        }
        if self.tend() && self.may_patch() {
            self.connect();
        }
    }

    fn plan_drain(&mut self) {
        if self.ready_to_retire() {
            return self.reprove();
        }
        self.tend();
    }

    fn plan_shrink(&mut self) {
        if self.tend() {
            self.complete();
        }
    }

    /// Keeps keystore and replicas as they should be. True once both are shown to be.
    pub fn tend(&mut self) -> bool {
        self.tend_keystore();
        self.tend_replicas();
        self.look_last();
        self.shown()
    }

    /// Whether keystore and replicas were shown to be as they should.
    pub fn shown(&self) -> bool {
        let confirmed = self.v.keystore == KeystoreView::Confirmed && (self.v.reread || mutants::on(Mutant::NoLastLook));
        (confirmed && self.v.timers.wait == 0 && self.proven()) || mutants::on(Mutant::PatchBeforePush)
    }

    /// Whether every replica was shown to accept what it should.
    pub fn proven(&self) -> bool {
        if mutants::proven(&self.r, &self.v) {
            return true;
        }
        if self.v.roster.is_empty() {
            return self.r.policy.unproven;
        }
        self.v.roster.iter().all(|id| match self.v.verdict(*id) {
            Some(Verdict::Accepts) => true,
            Some(Verdict::Inconclusive) => self.r.policy.unproven,
            _ => false,
        })
    }

    /// What replicas are asked for in this phase: accept, control, refuse. `None`: there is nothing to ask.
    pub fn question(&self) -> Option<(Kid, Option<Kid>, KidSet)> {
        match &self.r.phase {
            Phase::Push(r) | Phase::Patch(r, _) | Phase::Drain(r, _) => {
                Some((r.target, self.r.current.kid().filter(|kid| *kid != r.target), KidSet::new()))
            }
            Phase::Retire(r, shrinking) => Some((r.target, None, shrinking.removed.union(&r.dropped))),
            Phase::Abort(r, shrinking) => Some((self.r.current.kid()?, None, shrinking.removed.union(&r.dropped))),
            Phase::Idle | Phase::Hold(..) => None,
        }
    }

    pub fn rotation(&self) -> Option<&Rotation> {
        self.r.phase.rotation()
    }

    fn roster(&mut self, replicas: &[ReplicaId]) {
        let mut roster = replicas.to_vec();
        roster.sort_unstable();
        roster.dedup();
        self.v.verdicts.retain(|(id, _)| roster.contains(id));
        self.v.roster = roster;
        self.v.timers.ask_retry.clear();
    }
}
