//! Keeping the keystore and the replicas as the record says, and noticing when somebody else does not let us.

use super::step::{Core, LOOK_EVERY, RETRY_FIRST, RETRY_MOST};
use super::volatile::KeystoreView;
use super::{Draining, Effect, Found, Freshness, Hold, Note, Open, Patching, Phase, ReplicaId, Verdict};

impl Core {
    pub fn keystore_confirmed(&self) -> bool {
        #[cfg(feature = "mutants")]
        if super::mutants::active() == Some(super::Mutant::PatchBeforePush) {
            return true;
        }
        self.v.keystore == KeystoreView::Confirmed
    }

    /// The confirmed content goes on record.
    pub fn keep(&mut self) {
        if self.v.keystore == KeystoreView::Confirmed {
            self.r.kept = self.r.generation;
        }
    }

    pub fn tend_keystore(&mut self) {
        match self.v.keystore {
            KeystoreView::Unknown if self.v.timers.keystore_retry.due() => {
                // What was confirmed once is only read: if it is gone, somebody else took it, and that is counted.
                if self.r.kept == self.r.generation { self.read_keystore() } else { self.write_keystore() }
            }
            KeystoreView::Confirmed if self.v.timers.look == 0 && self.v.asking.is_none() && self.rotation().is_some() => {
                self.look()
            }
            _ => {}
        }
    }

    fn write_keystore(&mut self) {
        let call = self.v.next_call();
        self.v.keystore = KeystoreView::Writing { call };
        self.effects.push(Effect::WriteKeystore { call, generation: self.r.generation, kids: self.r.keystore_kids() });
    }

    pub fn read_keystore(&mut self) {
        let call = self.v.next_call();
        self.v.keystore = KeystoreView::Reading { call, confirmed: true };
        self.effects.push(Effect::ReadKeystore { call });
    }

    /// The regular look: is the content still ours, and do replicas still accept the target?
    fn look(&mut self) {
        self.v.timers.look = LOOK_EVERY;
        self.read_keystore();
        if self.v.laggards().is_empty() {
            self.ask(self.v.roster.clone(), false);
        }
    }

    pub fn tend_replicas(&mut self) {
        let laggards = self.v.laggards();
        if self.v.asking.is_some()
            || laggards.is_empty()
            || self.v.keystore != KeystoreView::Confirmed
            || self.v.timers.wait > 0
            || !self.v.timers.ask_retry.due()
        {
            return;
        }
        self.ask(laggards, true);
    }

    fn ask(&mut self, whom: Vec<ReplicaId>, full: bool) {
        if whom.is_empty() {
            return;
        }
        let Some((accept, control, refuse)) = self.question() else { return };
        let round = self.v.next_call();
        self.v.asking = Some(round);
        self.effects.push(Effect::AskReplicas { round, whom, generation: self.r.generation, accept, control, refuse, full });
    }

    pub fn replica_answered(&mut self, round: u64, replica: ReplicaId, verdict: Verdict) {
        if self.v.asking != Some(round) || !self.v.roster.contains(&replica) {
            return;
        }
        let before = self.v.verdict(replica);
        self.v.set_verdict(replica, verdict);
        if before == Some(Verdict::Accepts) && verdict != Verdict::Accepts {
            self.note(Note::ReplicaLost { replica });
        }
    }

    pub fn round_ended(&mut self, round: u64) {
        if self.v.asking != Some(round) {
            return;
        }
        self.v.asking = None;
        if self.v.laggards().is_empty() {
            self.v.timers.ask_retry.clear();
            self.v.timers.look = LOOK_EVERY;
            self.note(Note::ReplicasProven { replicas: self.v.roster.len() as u16 });
        } else {
            self.v.timers.ask_retry.back_off(RETRY_FIRST, RETRY_MOST);
        }
    }

    pub fn keystore_failed(&mut self, call: u64) {
        match self.v.keystore {
            KeystoreView::Writing { call: ours } | KeystoreView::Reading { call: ours, .. } if ours == call => {
                self.v.keystore = KeystoreView::Unknown;
                self.v.timers.keystore_retry.back_off(RETRY_FIRST, RETRY_MOST);
            }
            _ => {}
        }
    }

    pub fn keystore_found(&mut self, call: u64, found: &Found) {
        let (written, confirmed_before) = match self.v.keystore {
            KeystoreView::Writing { call: ours } if ours == call => (true, false),
            KeystoreView::Reading { call: ours, confirmed } if ours == call => (false, confirmed),
            _ => return,
        };
        let as_it_should = found.generation == self.r.generation
            && found.kids == self.r.keystore_kids()
            && found.strangers.is_empty()
            && !found.opaque;
        if as_it_should {
            self.v.keystore = KeystoreView::Confirmed;
            self.v.timers.keystore_retry.clear();
            if written {
                self.v.timers.wait = self.r.policy.wait;
                self.note(Note::KeystoreConfirmed { generation: self.r.generation });
            }
            return;
        }
        let ahead = found.generation > self.r.generation;
        let nothing_new = found.strangers.is_empty() && !found.opaque;
        if !ahead && !confirmed_before && nothing_new {
            // Our write was overtaken, or the number is taken by another content: the next number is free.
            if found.generation == self.r.generation {
                self.r.generation += 1;
            }
            self.v.keystore = KeystoreView::Unknown;
            self.v.timers.keystore_retry.back_off(RETRY_FIRST, RETRY_MOST);
            return;
        }
        self.keystore_lost(found, ahead, confirmed_before);
    }

    /// Somebody else wrote the keystore, or it or the store is from another time. Everything found is kept, nothing removed.
    fn keystore_lost(&mut self, found: &Found, ahead: bool, counted: bool) {
        self.v.forget_proofs();
        let union = self.r.keystore_kids().union(&found.strangers);
        if found.opaque || !self.fits(union.len()) {
            self.r.generation = self.r.generation.max(found.generation);
            return self.hold(Hold::KeystoreForeign);
        }
        if !found.strangers.is_empty() {
            self.r.accepted = self.r.accepted.union(&found.strangers);
            self.note(Note::KeystoreStrangers { kids: found.strangers.clone() });
        }
        self.r.generation = self.r.generation.max(found.generation) + 1;
        if ahead {
            self.reopen_everything();
        }
        let mut losses = 0;
        if let Some(rotation) = self.r.phase.rotation_mut() {
            rotation.losses = rotation.losses.saturating_add(u8::from(counted));
            losses = rotation.losses;
        }
        self.note(Note::KeystoreLost { generation: found.generation, losses });
        match self.r.phase {
            Phase::Idle if ahead => self.hold(Hold::Restored),
            _ if losses >= 2 => self.hold(Hold::KeystoreContested),
            _ => {}
        }
    }

    /// Requests that we do not remember may still be under way: every accepted secret counts as sent a moment ago.
    pub fn reopen_everything(&mut self) {
        let left = self.r.policy.quarantine;
        for kid in self.r.accepted.iter().collect::<Vec<_>>() {
            self.open(kid, left);
        }
        let target = self.rotation().map(|r| r.target);
        let foreign = target.is_some_and(|target| self.r.foreign_open(target));
        let phase = match &mut self.r.phase {
            Phase::Hold(_, was) => was.as_mut(),
            phase => phase,
        };
        match phase {
            Phase::Patch(_, patching) if foreign => patching.freshness = Freshness::ForeignOpen,
            Phase::Drain(rotation, Draining { settled, .. }) if foreign => {
                let patching =
                    Patching { freshness: Freshness::ForeignOpen, answered: true, settled: *settled, ..Patching::begin() };
                *phase = Phase::Patch(rotation.clone(), patching);
            }
            _ => {}
        }
    }

    pub fn open(&mut self, kid: crate::secret::Kid, left: u64) {
        match self.r.open.iter_mut().find(|open| open.kid == kid) {
            Some(open) => open.left = open.left.max(left),
            None => {
                self.r.open.push(Open { kid, left });
                self.r.open.sort_unstable_by_key(|open| open.kid);
            }
        }
    }
}
