//! What a person or the schedule asks for.

use super::mutants::{self, Mutant};
use super::step::{Core, Why};
use super::volatile::{KeystoreView, Overfull};
use super::{Cause, Current, Hold, KidSet, Millis, Note, Op, Phase, Reaccepted, Rotation, Shrinking};
use crate::secret::Kid;

impl Core {
    pub fn operate(&mut self, op: &Op) -> Result<(), Why> {
        let leaves = matches!(op, Op::Rotate { .. } | Op::Abort | Op::Rollback | Op::Supersede { .. } | Op::Resume);
        let unread = matches!(self.r.phase, Phase::Hold(Hold::Restored, _)) && self.v.keystore != KeystoreView::Confirmed;
        if leaves && unread && !mutants::on(Mutant::ResumeUnread) {
            match (&self.v.overfull, op) {
                (None, _) => return Err(Why::KeystoreUnread),
                (Some(_), Op::Resume) => {}
                (Some(_), _) => return Err(Why::Overfull),
            }
        }
        match op {
            Op::Adopt { kid, generation, replace } => self.adopt(*kid, *generation, *replace),
            Op::Rotate { fresh, cause, compromised, unconfirmed } => self.rotate(*fresh, *cause, *compromised, *unconfirmed),
            Op::Compromise => self.compromise(),
            Op::Abort => self.abort(),
            Op::Rollback => self.rollback(),
            Op::Supersede { fresh } => self.supersede(*fresh),
            Op::Reaccept { kid, credit } => self.reaccept(*kid, *credit),
            Op::Pause => {
                self.r.paused = true;
                self.note(Note::Paused);
                Ok(())
            }
            Op::Resume => self.resume(),
        }
    }

    fn adopt(&mut self, kid: Option<Kid>, generation: Option<u64>, replace: bool) -> Result<(), Why> {
        if !matches!(self.r.phase.underlying(), Phase::Idle) {
            return Err(Why::RotationUnderWay);
        }
        let before = self.r.keystore_kids();
        match kid {
            // That is known already, and the hold, which waits for a fresh secret, would be gone.
            None if matches!(self.r.phase, Phase::Hold(Hold::Restored, _)) => return Err(Why::OnlyForward),
            None => self.r.current = Current::Unknown,
            Some(kid) => {
                if self.r.is_retired(kid) {
                    return Err(Why::UsedKid);
                }
                let mut accepted = self.r.accepted.clone();
                if replace || generation.is_some() {
                    // What a request under way may still bring stays accepted, whoever says otherwise.
                    accepted = self.r.open.iter().map(|open| open.kid).filter(|kid| accepted.contains(*kid)).collect();
                }
                accepted.insert(kid);
                if !self.fits(accepted.len() + self.r.reaccepted.len()) {
                    return Err(Why::SlotsFull);
                }
                self.r.accepted = accepted;
                self.r.current = Current::Known(kid);
            }
        }
        self.r.confirmed = false;
        self.r.generation = self.r.generation.max(generation.unwrap_or(0));
        if generation.is_some() && self.r.keystore_kids().iter().all(|held| Some(held) == kid) {
            self.r.kept = self.r.generation;
        } else if generation.is_some() || self.r.keystore_kids() != before {
            self.r.next_generation();
            self.v.forget_proofs();
        }
        self.r.phase = Phase::Idle;
        self.note(Note::Adopted { kid });
        Ok(())
    }

    fn rotate(&mut self, fresh: Kid, cause: Cause, compromised: bool, unconfirmed: bool) -> Result<(), Why> {
        match &self.r.phase {
            Phase::Idle => {}
            Phase::Hold(Hold::Restored, was) if **was == Phase::Idle => {}
            _ => return Err(Why::RotationUnderWay),
        }
        if self.r.current == Current::Missing {
            return Err(Why::NotAdopted);
        }
        if !(self.r.confirmed || unconfirmed || compromised) {
            return Err(Why::Unconfirmed);
        }
        if self.r.paused {
            return Err(Why::Paused);
        }
        self.begin(fresh, cause, compromised, KidSet::new())
    }

    fn begin(&mut self, fresh: Kid, cause: Cause, compromised: bool, dropped: KidSet) -> Result<(), Why> {
        if self.r.accepted.contains(fresh) || self.r.is_retired(fresh) {
            return Err(Why::UsedKid);
        }
        if !self.fits(self.r.keystore_kids().len() + 1) {
            return Err(Why::SlotsFull);
        }
        self.r.rotations = self.r.rotations.saturating_add(1);
        let number = self.r.rotations;
        self.r.accepted.insert(fresh);
        self.r.next_generation();
        self.r.phase = Phase::Push(Rotation { number, target: fresh, cause, compromised, losses: 0, dropped });
        self.v.forget_proofs();
        self.v.timers = super::volatile::Timers::default();
        self.note(Note::RotationBegan { number, target: fresh, compromised });
        Ok(())
    }

    fn compromise(&mut self) -> Result<(), Why> {
        if matches!(self.r.phase.underlying(), Phase::Retire(..) | Phase::Abort(..)) {
            return Err(Why::Retiring);
        }
        let current = self.r.current;
        let Some(rotation) = self.r.phase.rotation_mut() else { return Err(Why::NoRotation) };
        // What leaked is the previous secret; a rotation that returns to it, or after a restore stays with it, must be superseded
        // instead.
        if matches!(rotation.cause, Cause::Rollback | Cause::SwitchBack) || current == Current::Known(rotation.target) {
            return Err(Why::Compromised);
        }
        rotation.compromised = true;
        self.note(Note::Compromised);
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Why> {
        let rotation = match self.r.phase.underlying() {
            Phase::Push(rotation) => rotation.clone(),
            Phase::Idle => return Err(Why::NoRotation),
            Phase::Retire(..) | Phase::Abort(..) => return Err(Why::Retiring),
            _ => return Err(Why::AlreadySent),
        };
        let target = rotation.target;
        // No replica could be asked for what it should accept then, so the end of it could never be shown.
        if self.r.current.kid().is_none() {
            return Err(Why::NoWayBack);
        }
        let others = self.r.accepted.iter().filter(|kid| *kid != target && self.r.current != Current::Known(*kid)).count();
        if self.r.open.iter().any(|open| open.kid == target) || (rotation.cause == Cause::Supersede && others > 0) {
            return Err(Why::AlreadySent);
        }
        if others > 0 {
            return Err(Why::OnlyForward);
        }
        self.note(Note::AbortBegan { kid: target });
        self.shrink(&rotation, [target].into_iter().collect(), Phase::Abort);
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), Why> {
        let rotation = match self.r.phase.underlying() {
            Phase::Idle => return Err(Why::NoRotation),
            Phase::Retire(..) | Phase::Abort(..) => return Err(Why::Retiring),
            Phase::Push(rotation) if rotation.cause != Cause::Supersede => return Err(Why::NeverSent),
            Phase::Push(rotation) | Phase::Patch(rotation, _) | Phase::Drain(rotation, _) => rotation.clone(),
            Phase::Hold(..) => return Err(Why::NoRotation),
        };
        let Some(back) = self.r.current.kid() else { return Err(Why::NoWayBack) };
        if back == rotation.target {
            return Err(Why::NoWayBack);
        }
        if rotation.compromised && !mutants::on(Mutant::LeakForgotten) {
            return Err(Why::Compromised);
        }
        self.unhold();
        if let Phase::Push(_) = self.r.phase {
            self.drop_unsent_target();
            // The target of the rollback is `current`; the last one that was sent takes its place as what is given up.
            self.turn_back(Cause::Rollback);
            self.r.current = self.r.accepted.iter().find(|kid| *kid != back).map_or(Current::Known(back), Current::Known);
        } else {
            self.turn_back(Cause::Rollback);
        }
        Ok(())
    }

    /// Takes a target that was never sent out of the set; replicas are asked to have forgotten it before the rotation ends.
    fn drop_unsent_target(&mut self) {
        let Phase::Push(rotation) = &mut self.r.phase else { return };
        let (kid, compromised) = (rotation.target, rotation.compromised);
        rotation.dropped.insert(kid);
        self.r.accepted.remove(kid);
        self.tombstone(kid, compromised);
        self.r.next_generation();
        self.v.forget_proofs();
    }

    fn supersede(&mut self, fresh: Kid) -> Result<(), Why> {
        if self.r.paused {
            return Err(Why::Paused);
        }
        let underlying = self.r.phase.underlying().clone();
        let never_sent =
            matches!(&underlying, Phase::Push(rotation) if !self.r.open.iter().any(|open| open.kid == rotation.target));
        let compromised = underlying.rotation().is_some_and(|r| r.compromised);
        match underlying {
            Phase::Idle => Err(Why::NoRotation),
            Phase::Hold(..) => Err(Why::NoRotation),
            Phase::Push(_) if never_sent => {
                self.unhold();
                let cause = self.rotation().map_or(Cause::Demand, |r| r.cause);
                self.drop_unsent_target();
                let dropped = self.rotation().map(|r| r.dropped.clone()).unwrap_or_default();
                self.note(Note::Superseded { by: fresh });
                self.begin(fresh, cause, compromised, dropped)
            }
            Phase::Push(rotation) | Phase::Patch(rotation, _) | Phase::Drain(rotation, _) => {
                self.note(Note::Superseded { by: fresh });
                self.begin(fresh, Cause::Supersede, compromised, rotation.dropped)
            }
            Phase::Retire(rotation, Shrinking { removed, proven }) => {
                self.r.current = Current::Known(rotation.target);
                self.r.confirmed = proven;
                self.note(Note::Superseded { by: fresh });
                self.begin(fresh, Cause::Demand, false, removed.union(&rotation.dropped))
            }
            Phase::Abort(rotation, Shrinking { removed, .. }) => {
                self.note(Note::Superseded { by: fresh });
                self.begin(fresh, Cause::Demand, false, removed.union(&rotation.dropped))
            }
        }
    }

    fn reaccept(&mut self, kid: Kid, credit: Millis) -> Result<(), Why> {
        let Some(retired) = self.r.retired.iter().find(|retired| retired.kid == kid) else { return Err(Why::NotRetired) };
        if retired.compromised && !mutants::on(Mutant::LeakForgotten) {
            return Err(Why::Compromised);
        }
        match self.r.phase {
            Phase::Idle => {}
            _ => return Err(Why::RotationUnderWay),
        }
        let known = self.r.reaccepted.iter().any(|r| r.kid == kid);
        if !known && !self.fits(self.r.keystore_kids().len() + 1) {
            return Err(Why::SlotsFull);
        }
        self.r.reaccepted.retain(|r| r.kid != kid);
        self.r.reaccepted.push(Reaccepted { kid, left: credit });
        if !known {
            self.r.next_generation();
            self.v.forget_proofs();
        }
        self.note(Note::Reaccepted { kid, credit });
        Ok(())
    }

    fn unhold(&mut self) {
        if let Phase::Hold(_, was) = &self.r.phase {
            self.r.phase = (**was).clone();
        }
    }

    fn resume(&mut self) -> Result<(), Why> {
        if !self.r.paused && !matches!(self.r.phase, Phase::Hold(..)) {
            return Err(Why::NotHeld);
        }
        if matches!(self.r.phase, Phase::Hold(Hold::ConfigDrift, _)) {
            return Err(Why::ConfigDrift);
        }
        if let Phase::Hold(Hold::Restored, was) = &self.r.phase {
            let forward = matches!(**was, Phase::Idle | Phase::Abort(..))
                && self.r.accepted.iter().any(|kid| self.r.current != Current::Known(kid));
            if let Some(overfull) = self.v.overfull.clone() {
                self.may_settle_on(&overfull.there)?;
                self.v.overfull = Some(Overfull { settle: true, ..overfull });
                // Also where it is being read: what somebody changes before asking must be seen.
                self.read_keystore();
                return Ok(());
            }
            if forward && !self.fits(self.r.keystore_kids().len() + 1) {
                return self.settle_on(&self.r.keystore_kids());
            }
            if !forward {
                return self.leave();
            }
            // The way forward is a rotation, which a pause refuses: the pause is what can be left.
            if !self.r.paused {
                return Err(Why::OnlyForward);
            }
            self.r.paused = false;
            self.note(Note::Resumed);
            return Ok(());
        }
        self.leave()
    }

    /// Leaves the hold, or the pause.
    fn leave(&mut self) -> Result<(), Why> {
        self.r.paused = false;
        if matches!(self.r.phase, Phase::Hold(..)) {
            self.unhold();
            if let Some(rotation) = self.r.phase.rotation_mut() {
                rotation.losses = 0;
                if rotation.cause == Cause::SwitchBack {
                    rotation.cause = Cause::Rollback;
                }
            }
            self.v.forget_proofs();
            self.v.timers = super::volatile::Timers::default();
        }
        self.note(Note::Resumed);
        Ok(())
    }

    /// Whether what a restored record has beside `there` can be given up.
    fn may_settle_on(&self, there: &KidSet) -> Result<(), Why> {
        let given_up = self.r.accepted.without(there);
        let stays = self.r.accepted.len() - given_up.len();
        if stays == 0 || !self.fits(stays) {
            return Err(Why::Overfull);
        }
        if self.r.open.iter().any(|open| given_up.contains(open.kid)) {
            return Err(Why::MayStillLand);
        }
        Ok(())
    }

    /// The way out of a restored record where the keystore has no room for a fresh secret: what the keystore holds is kept, since
    /// that is what consumers accept, the rest is given up, and one of it is sent and proven like any other target.
    pub fn settle_on(&mut self, there: &KidSet) -> Result<(), Why> {
        self.may_settle_on(there)?;
        let given_up = self.r.accepted.without(there);
        let stays = self.r.accepted.without(&given_up);
        let mut was = self.r.phase.rotation().cloned();
        if let (Some(rotation), Phase::Retire(_, shrinking) | Phase::Abort(_, shrinking)) = (&mut was, self.r.phase.underlying())
        {
            rotation.dropped = rotation.dropped.union(&shrinking.removed);
        }
        let current = self.r.current.kid().filter(|kid| stays.contains(*kid));
        let other = |than: Option<Kid>| stays.iter().find(|kid| Some(*kid) != than);
        let intended = was.as_ref().map(|rotation| rotation.target).filter(|kid| stays.contains(*kid));
        // What the record does not know as current is what came after it.
        let Some(target) = intended.or_else(|| other(current)).or(current) else { return Err(Why::Overfull) };
        let leaked = was.as_ref().is_some_and(|rotation| rotation.compromised);
        let begins = was.is_none();
        let mut rotation = was.unwrap_or_else(|| {
            self.r.rotations = self.r.rotations.saturating_add(1);
            Rotation {
                number: self.r.rotations,
                target,
                cause: Cause::Demand,
                compromised: false,
                losses: 0,
                dropped: KidSet::new(),
            }
        });
        rotation.target = target;
        // The leak was of the previous secret: where that is gone, nothing is in a hurry.
        rotation.compromised = leaked && current.is_some_and(|kid| kid != target);
        rotation.dropped = rotation.dropped.union(&given_up);
        for kid in given_up.iter() {
            self.r.accepted.remove(kid);
            self.tombstone(kid, leaked && self.r.current == Current::Known(kid));
        }
        self.r.reaccepted.retain(|r| there.contains(r.kid));
        self.r.current = Current::Known(current.filter(|kid| *kid != target).or_else(|| other(Some(target))).unwrap_or(target));
        self.r.next_generation();
        if begins {
            self.note(Note::RotationBegan { number: rotation.number, target, compromised: false });
        }
        self.suspect(rotation);
        self.leave()
    }
}
