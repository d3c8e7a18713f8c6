//! Keeping the keystore and the replicas as the record says, and noticing when somebody else does not let us.

use super::mutants::{self, Mutant};
use super::step::{Core, LOOK_EVERY, RETRY_FIRST, RETRY_MOST};
use super::volatile::{KeystoreView, Overfull};
use super::{Current, Effect, Found, Freshness, Hold, KidSet, Note, Open, Patching, Phase, ReplicaId, Rotation, Verdict};
use crate::secret::Kid;

impl Core {
    /// The confirmed content goes on record.
    pub fn keep(&mut self) {
        if self.v.keystore == KeystoreView::Confirmed {
            self.r.kept = self.r.generation;
        }
    }

    pub fn tend_keystore(&mut self) {
        match self.v.keystore {
            KeystoreView::Unknown if self.v.timers.keystore_retry.due() => {
                // What was confirmed once is only read: if it is gone, somebody else took it, and that is counted. So is what
                // has no room.
                let full = !self.fits(self.r.keystore_kids().len());
                if self.r.kept == self.r.generation || full { self.read_keystore() } else { self.write_keystore() }
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
        self.v.keystore = KeystoreView::Reading { call, last: self.all_proofs() };
        self.effects.push(Effect::ReadKeystore { call });
    }

    /// Between rotations nothing is known of the keystore but what somebody happens to see. It is read again, as after a start,
    /// and what is lost is written again.
    pub fn doubt_keystore(&mut self) {
        if self.r.phase == Phase::Idle && self.v.keystore == KeystoreView::Confirmed {
            self.v.keystore = KeystoreView::Unknown;
        }
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

    /// While the replicas were asked, one after the other, somebody may have put back what they read next. So the keystore has
    /// the last word: it is read once more after the last proof.
    pub fn look_last(&mut self) {
        if self.v.keystore == KeystoreView::Confirmed && !self.v.reread && self.all_proofs() && !mutants::on(Mutant::NoLastLook) {
            self.read_keystore();
        }
    }

    fn all_proofs(&self) -> bool {
        self.v.timers.wait == 0 && self.v.asking.is_none() && self.proven()
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
                self.v.overfull = None;
                self.v.timers.keystore_retry.back_off(RETRY_FIRST, RETRY_MOST);
            }
            _ => {}
        }
    }

    pub fn keystore_found(&mut self, call: u64, found: &Found) {
        let (written, last) = match self.v.keystore {
            KeystoreView::Writing { call: ours } if ours == call => (true, false),
            KeystoreView::Reading { call: ours, last } if ours == call => (false, last),
            _ => return,
        };
        let as_it_should = found.generation == self.r.generation
            && found.kids == self.r.keystore_kids()
            && found.strangers.is_empty()
            && !found.opaque;
        if as_it_should {
            self.v.keystore = KeystoreView::Confirmed;
            self.v.reread |= last;
            self.v.timers.keystore_retry.clear();
            // What was just read needs no look for a while.
            self.v.timers.look = LOOK_EVERY;
            if written {
                self.v.timers.wait = self.r.policy.wait;
                self.note(Note::KeystoreConfirmed { generation: self.r.generation });
            }
            return;
        }
        let ahead = found.generation > self.r.generation;
        let nothing_new = found.strangers.is_empty() && !found.opaque;
        // What was written is not there: somebody wrote in the same moment, and counts like one who writes later.
        let undone = written && found.generation != self.r.generation;
        let number_taken = written && !undone && nothing_new;
        if undone || number_taken {
            self.v.timers.keystore_retry.back_off(RETRY_FIRST, RETRY_MOST);
        }
        if number_taken {
            // By another content: the next one is free.
            self.r.next_generation();
            // Replicas may have read the other content meanwhile.
            if !mutants::on(Mutant::ProofsSurviveOverwrite) {
                self.v.forget_proofs();
            }
            self.v.keystore = KeystoreView::Unknown;
            return;
        }
        self.keystore_lost(found, ahead, !written || undone);
    }

    /// Somebody else wrote the keystore, or it or the store is from another time. Everything found is kept, nothing removed.
    fn keystore_lost(&mut self, found: &Found, ahead: bool, counted: bool) {
        let settle = self.v.overfull.as_ref().is_some_and(|overfull| overfull.settle);
        self.v.forget_proofs();
        let union = self.r.keystore_kids().union(&found.strangers);
        let room = self.fits(union.len()) || mutants::on(Mutant::FullKeystoreOverwritten);
        let restored = matches!(self.r.phase, Phase::Hold(Hold::Restored, _));
        if found.opaque || !room {
            self.r.generation = self.r.generation.max(found.generation);
            self.v.timers.keystore_retry.back_off(RETRY_FIRST, RETRY_MOST);
            if found.opaque || !restored {
                return self.hold(Hold::KeystoreForeign);
            }
            return self.overfill(found, ahead, settle);
        }
        self.r.generation = self.r.generation.max(found.generation);
        self.r.next_generation();
        if ahead {
            self.reopen_everything();
        }
        if !found.strangers.is_empty() && self.fits(union.len()) {
            self.adopt_strangers(&found.strangers);
        }
        let counted = counted && !restored;
        let mut losses = 0;
        if let Some(rotation) = self.r.phase.rotation_mut() {
            rotation.losses = rotation.losses.saturating_add(u8::from(counted));
            losses = rotation.losses;
        }
        self.note(Note::KeystoreLost { generation: found.generation, losses });
        match self.r.phase {
            Phase::Idle if ahead && self.r.kept > 0 => self.hold(Hold::Restored),
            _ if losses >= 2 => self.hold(Hold::KeystoreContested),
            _ => {}
        }
    }

    /// A restored record and the keystore are together more than the keystore has room for. All of it is kept on record, and
    /// the keystore left as it is, since that is what consumers accept: which of it stays, a person says ([`super::Op::Resume`]).
    fn overfill(&mut self, found: &Found, ahead: bool, settle: bool) {
        if ahead {
            self.reopen_everything();
        }
        if !found.strangers.is_empty() {
            self.r.next_generation();
            self.adopt_strangers(&found.strangers);
        }
        let there = found.kids.union(&found.strangers);
        let there = there.iter().filter(|kid| self.r.keystore_kids().contains(*kid)).collect();
        // What stands against it now stood against it when the person asked, or is new: he will ask again.
        if !settle || self.settle_on(&there).is_err() {
            self.v.overfull = Some(Overfull { there, settle: false });
        }
    }

    /// Takes over keys that somebody else put into the keystore. DialNexa may sign with any of them, now or in a while.
    fn adopt_strangers(&mut self, strangers: &KidSet) {
        self.r.accepted = self.r.accepted.union(strangers);
        for kid in strangers.iter() {
            self.open(kid, self.r.policy.quarantine);
        }
        self.doubt_target();
        self.note(Note::KeystoreStrangers { kids: strangers.clone() });
        match self.r.phase.underlying().clone() {
            // What stays is not what DialNexa signs with, perhaps: it is sent once more.
            Phase::Retire(mut rotation, shrinking) => {
                self.r.current = Current::Known(rotation.target);
                rotation.dropped = rotation.dropped.union(&shrinking.removed);
                self.suspect(rotation);
            }
            // Nothing of ours was ever there: they are from before the adoption, and were accepted all along.
            Phase::Idle if self.r.kept == 0 => {}
            Phase::Idle | Phase::Abort(..) => self.hold(Hold::Restored),
            _ => {}
        }
    }

    /// Requests that we do not remember may still be under way: every accepted secret counts as sent a moment ago.
    pub fn reopen_everything(&mut self) {
        let left = self.r.policy.quarantine;
        for kid in self.r.accepted.iter().collect::<Vec<_>>() {
            self.open(kid, left);
        }
        if let Phase::Push(rotation) = self.r.phase.underlying().clone() {
            self.suspect(rotation);
        }
        self.doubt_target();
    }

    /// What was known of the target is not known any more: another secret may have been sent since, or may still land.
    fn doubt_target(&mut self) {
        if let Phase::Patch(rotation, _) | Phase::Drain(rotation, _) = self.r.phase.underlying().clone() {
            self.suspect(rotation);
        }
    }

    /// The target may have been sent before, and anything else since.
    pub fn suspect(&mut self, rotation: Rotation) {
        let freshness = self.freshness_of_used(rotation.target);
        let phase = Phase::Patch(rotation, Patching { freshness, sent: 1, doubt: self.r.policy.quarantine, ..Patching::begin() });
        match &mut self.r.phase {
            Phase::Hold(_, was) => **was = phase,
            other => *other = phase,
        }
        self.v.reproving = false;
    }

    /// What a delivery signed with `target` says about now, where DialNexa has had it before.
    pub fn freshness_of_used(&self, target: Kid) -> Freshness {
        if self.r.foreign_open(target) { Freshness::ForeignOpen } else { Freshness::Waiting { left: self.r.policy.drain } }
    }

    pub fn open(&mut self, kid: Kid, left: u64) {
        match self.r.open.iter_mut().find(|open| open.kid == kid) {
            Some(open) => open.left = open.left.max(left),
            None => {
                self.r.open.push(Open { kid, left });
                self.r.open.sort_unstable_by_key(|open| open.kid);
            }
        }
    }
}
