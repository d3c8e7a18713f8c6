//! Sending the target, hearing of it, and retiring what came before.

use super::mutants::{self, Mutant};
use super::step::{BACKOFF_MOST, Core, LOOK_EVERY, RETRY_FIRST, RETRY_MOST};
use super::volatile::{Line, WebhookView};
use super::{
    Cause, Current, Draining, Effect, Freshness, Hold, Inspection, Note, OnReject, PatchAnswer, Patching, Phase, Retired,
    Rotation, Seen, Shrinking,
};

impl Patching {
    pub fn begin() -> Patching {
        Patching { freshness: Freshness::Fresh, sent: 0, doubt: 0, settled: false, answered: false, seen: 0, span: 0 }
    }
}

impl Core {
    /// Whether a PATCH may go out once keystore and replicas are proven.
    pub fn may_patch(&self) -> bool {
        let Some(rotation) = self.rotation() else { return false };
        let first_may_go = match &self.r.phase {
            // A fresh target waits until nothing else can land after it: then its first delivery is conclusive. Where time
            // matters more (a leak, a target that failed) it goes at once and is proven later.
            Phase::Push(_) => rotation.compromised || rotation.cause == Cause::Supersede || !self.foreign_open_now(),
            Phase::Patch(..) => true,
            _ => false,
        };
        first_may_go && !self.r.paused && self.v.line == Line::Free && self.v.timers.line_retry.due()
    }

    pub fn foreign_open_now(&self) -> bool {
        self.rotation().is_some_and(|r| self.r.foreign_open(r.target)) && !mutants::on(Mutant::IgnoreOpenAttempts)
    }

    pub fn connect(&mut self) {
        let call = self.v.next_call();
        self.v.line = Line::Connecting { call };
        self.effects.push(Effect::Connect { call });
    }

    /// The line stands: the intent is written, and with its commit the request goes out.
    pub fn connected(&mut self, call: u64) {
        if self.v.line != (Line::Connecting { call }) {
            return;
        }
        self.v.line = Line::Free;
        if !self.shown() || !self.may_patch() {
            return;
        }
        let alone = !self.foreign_open_now();
        let (rotation, mut patching) = match &self.r.phase {
            Phase::Push(rotation) => {
                let freshness = if alone { Freshness::Fresh } else { Freshness::ForeignOpen };
                (rotation.clone(), Patching { freshness, ..Patching::begin() })
            }
            Phase::Patch(rotation, patching) => (rotation.clone(), patching.clone()),
            _ => return,
        };
        patching.sent = patching.sent.saturating_add(1);
        let doubt = std::mem::replace(&mut patching.doubt, self.r.policy.quarantine);
        self.r.attempts = self.r.attempts.saturating_add(1);
        let (attempt, kid) = (self.r.attempts, rotation.target);
        if !mutants::on(Mutant::EffectBeforeIntent) {
            self.open(kid, if mutants::on(Mutant::NoQuarantine) { 1 } else { self.r.policy.quarantine });
            self.r.phase = Phase::Patch(rotation, patching);
        }
        self.keep();
        self.v.line = Line::Sent { attempt, kid, alone, doubt };
        self.note(Note::Intent { attempt, kid });
        self.effects.push(Effect::SendPatch { call, attempt, kid });
    }

    pub fn connect_failed(&mut self, call: u64) {
        if self.v.line == (Line::Connecting { call }) {
            self.v.line = Line::Free;
            self.v.timers.line_retry.back_off(RETRY_FIRST, RETRY_MOST);
        }
    }

    pub fn patched(&mut self, attempt: u64, answer: PatchAnswer) {
        let Line::Sent { attempt: ours, kid, alone, doubt } = self.v.line else { return };
        if ours != attempt {
            return;
        }
        self.v.line = Line::Free;
        if mutants::on(Mutant::AnswerClosesOthers) && matches!(answer, PatchAnswer::Applied) {
            mutants::close_others(&mut self.r.open, kid);
        }
        self.close_quarantined();
        self.note(Note::Answered { attempt, answer });
        let policy = self.r.policy;
        let foreign = self.foreign_open_now();
        let Phase::Patch(rotation, patching) = &mut self.r.phase else { return };
        // Whatever came of a target that was given up meanwhile says nothing about this one.
        if rotation.target != kid && !mutants::on(Mutant::AnyAnswerCounts) {
            return;
        }
        let definite = !matches!(answer, PatchAnswer::Applied | PatchAnswer::Ambiguous { .. });
        if definite {
            patching.doubt = doubt;
        }
        if mutants::on(Mutant::TimeoutMeansNotApplied) && matches!(answer, PatchAnswer::Ambiguous { .. }) {
            mutants::close(&mut self.r.open, kid);
            self.r.phase = Phase::Push(rotation.clone());
            return;
        }
        let retry = &mut self.v.timers.line_retry;
        match answer {
            PatchAnswer::Applied => {
                patching.answered = true;
                patching.settled |= alone && !foreign || mutants::on(Mutant::EmergencyBelievesAny200);
                retry.left = if mutants::on(Mutant::OkStopsReassertion) { u64::MAX } else { policy.repeat_max };
                // Sent beside another request that has ended since: an emergency asks once more, alone.
                if rotation.compromised && !patching.settled && !foreign {
                    retry.clear();
                }
                if rotation.cause == Cause::SwitchBack {
                    self.hold(Hold::RejectedByConsumer);
                }
            }
            // Where it may have been taken before, what is refused may be that it is nothing new.
            PatchAnswer::ValueRefused if patching.answered || doubt > 0 => retry.back_off(policy.repeat_min, BACKOFF_MOST),
            PatchAnswer::ValueRefused => self.hold(Hold::TargetRefused),
            PatchAnswer::ApiKeyRefused => self.hold(Hold::ApiKeyRefused),
            PatchAnswer::WebhookGone => self.hold(Hold::WebhookGone),
            PatchAnswer::Limited { wait } | PatchAnswer::Ambiguous { wait } => {
                retry.back_off(policy.repeat_min, BACKOFF_MOST);
                retry.wait_at_least(wait);
            }
        }
    }

    /// Once nothing foreign can land any more, old deliveries of a re-used target are waited out.
    pub fn freshen(&mut self) {
        let foreign = self.foreign_open_now();
        let drain = self.r.policy.drain;
        let Phase::Patch(rotation, patching) = &mut self.r.phase else { return };
        if patching.freshness == Freshness::ForeignOpen && !foreign {
            let left = if mutants::on(Mutant::NoFreshnessWait) { 0 } else { drain };
            patching.freshness = if left == 0 { Freshness::Fresh } else { Freshness::Waiting { left } };
            if rotation.compromised && !patching.settled {
                self.v.timers.line_retry.clear();
            }
        }
    }

    pub fn seen(&mut self, seen: &Seen) {
        if seen.probe && !mutants::on(Mutant::ProbeIsEvidence) {
            return;
        }
        if self.r.is_retired(seen.kid) && !self.r.accepted.contains(seen.kid) {
            self.note(Note::RetiredKeySeen { kid: seen.kid });
        }
        match &self.r.phase {
            phase
                if *phase.underlying() == Phase::Idle
                    && self.r.current == Current::Known(seen.kid)
                    && !self.r.confirmed
                    && seen.accepted != Some(false) =>
            {
                self.r.confirmed = true;
                self.note(Note::Confirmed { kid: seen.kid });
            }
            Phase::Hold(Hold::Restored, _) => self.seen_beside_the_keystore(seen),
            Phase::Patch(rotation, _) | Phase::Drain(rotation, _) => {
                if seen.kid != rotation.target {
                    self.seen_other(seen);
                } else if seen.accepted == Some(false) {
                    self.rejected();
                } else {
                    self.seen_target(seen);
                }
            }
            _ => {}
        }
    }

    /// While deliveries come signed with a key that the keystore lacks, it cannot be given up for those that it holds.
    fn seen_beside_the_keystore(&mut self, seen: &Seen) {
        let lacks = self.v.overfull.as_ref().is_some_and(|overfull| !overfull.there.contains(seen.kid));
        if lacks && seen.new_body && self.r.accepted.contains(seen.kid) {
            self.open(seen.kid, self.r.policy.quarantine);
        }
    }

    fn seen_target(&mut self, seen: &Seen) {
        let policy = self.r.policy;
        let Phase::Patch(rotation, patching) = &mut self.r.phase else { return };
        let fresh = patching.freshness == Freshness::Fresh || mutants::on(Mutant::StaleEvidence);
        if !fresh || !seen.new_body {
            return;
        }
        patching.seen = patching.seen.saturating_add(1);
        if patching.seen < policy.min_deliveries || patching.span < policy.min_span {
            return;
        }
        let (kid, switch_back) = (rotation.target, rotation.cause == Cause::SwitchBack);
        let left = if mutants::on(Mutant::DrainFromPatch) { policy.drain.saturating_sub(patching.span) } else { policy.drain };
        self.r.phase = Phase::Drain(rotation.clone(), Draining { left, settled: patching.settled, proven: true });
        self.note(Note::SwitchProven { kid });
        if switch_back {
            self.hold(Hold::RejectedByConsumer);
        }
    }

    /// A delivery signed with an accepted secret other than the target.
    fn seen_other(&mut self, seen: &Seen) {
        if !seen.new_body || !self.r.accepted.contains(seen.kid) {
            return;
        }
        let (first, most) = (self.r.policy.repeat_min, self.r.policy.repeat_max);
        let was_draining = match &mut self.r.phase {
            Phase::Patch(_, patching) if patching.answered && !mutants::on(Mutant::OkStopsReassertion) => false,
            Phase::Drain(rotation, draining) => {
                let patching = Patching { sent: 1, answered: true, settled: draining.settled, ..Patching::begin() };
                self.r.phase = Phase::Patch(rotation.clone(), patching);
                self.v.reproving = false;
                true
            }
            _ => return,
        };
        let retry = &mut self.v.timers.line_retry;
        // Each clear 200 allows one repetition to be brought forward; the distance doubles.
        if retry.left > retry.step.max(first) || was_draining {
            retry.back_off(first, most);
            self.note(if was_draining { Note::DrainBroken { kid: seen.kid } } else { Note::StillOld { kid: seen.kid } });
        }
    }

    /// The consumer refused a genuine delivery signed with the target. Nobody can forge that.
    fn rejected(&mut self) {
        let Some(rotation) = self.rotation().cloned() else { return };
        self.note(Note::RejectedByConsumer { kid: rotation.target });
        let turned = matches!(rotation.cause, Cause::Rollback | Cause::SwitchBack);
        let way_back = self.r.current.kid().is_some() && !rotation.compromised && !turned;
        if way_back && self.r.policy.on_reject == OnReject::SwitchBack {
            self.turn_back(Cause::SwitchBack);
        } else {
            self.hold(Hold::RejectedByConsumer);
        }
    }

    /// Makes the previous secret the target again. Both stay accepted; the given-up one may still land.
    pub fn turn_back(&mut self, cause: Cause) {
        let Some(mut rotation) = self.rotation().cloned() else { return };
        let Some(back) = self.r.current.kid() else { return };
        let given_up = std::mem::replace(&mut rotation.target, back);
        rotation.cause = cause;
        self.r.current = Current::Known(given_up);
        let freshness = self.freshness_of_used(back);
        self.r.phase = Phase::Patch(rotation, Patching { freshness, ..Patching::begin() });
        self.v.verdicts.clear();
        self.v.reread = false;
        self.v.asking = None;
        self.v.reproving = false;
        self.v.timers.line_retry.clear();
        self.v.timers.ask_retry.clear();
        self.note(Note::RolledBack { to: back });
    }

    /// Whether everything but the last proofs is there for the retire.
    pub fn ready_to_retire(&self) -> bool {
        if self.r.paused || self.foreign_open_now() {
            return false;
        }
        if let Some(ready) = mutants::ready_to_retire(&self.r.phase) {
            return ready;
        }
        match &self.r.phase {
            Phase::Patch(rotation, patching) => rotation.compromised && patching.settled,
            Phase::Drain(rotation, draining) => draining.left == 0 || rotation.compromised || mutants::on(Mutant::NoDrain),
            _ => false,
        }
    }

    /// Takes both acceptance proofs once more, asks DialNexa whether the webhook is still there, then retires.
    pub fn reprove(&mut self) {
        let skip_inspection = self.rotation().is_some_and(|r| r.compromised);
        if mutants::on(Mutant::NoReproof) {
            return self.begin_retire();
        }
        if !self.v.reproving {
            self.v.forget_proofs();
            self.v.reproving = true;
            self.v.webhook = WebhookView::Unknown;
            self.v.timers.look = LOOK_EVERY;
            // What is known to be lost is written, with a read-back; to read it again would be to lose it again.
            if self.r.kept == self.r.generation {
                self.read_keystore();
            }
        }
        if self.v.webhook == WebhookView::Unknown && !skip_inspection && self.v.timers.webhook_retry.due() {
            let call = self.v.next_call();
            self.v.webhook = WebhookView::Asking { call };
            self.effects.push(Effect::InspectWebhook { call });
        }
        let proven = self.tend();
        let inspected = skip_inspection || matches!(self.v.webhook, WebhookView::Known(_));
        if proven && inspected && self.v.reproving {
            self.begin_retire();
        }
    }

    pub fn inspected(&mut self, call: u64, answer: Inspection) {
        if self.v.webhook != (WebhookView::Asking { call }) {
            return;
        }
        self.v.webhook = WebhookView::Unknown;
        match answer {
            Inspection::Active | Inspection::Inactive => {
                self.v.webhook = WebhookView::Known(answer);
                self.v.timers.webhook_retry.clear();
                if answer == Inspection::Inactive {
                    self.note(Note::WebhookInactive);
                }
            }
            Inspection::Gone => self.hold(Hold::WebhookGone),
            Inspection::ApiKeyRefused => self.hold(Hold::ApiKeyRefused),
            Inspection::Unreachable => self.v.timers.webhook_retry.back_off(RETRY_FIRST, RETRY_MOST),
        }
    }

    fn begin_retire(&mut self) {
        let (rotation, proven) = match &self.r.phase {
            Phase::Patch(rotation, _) => (rotation.clone(), false),
            Phase::Drain(rotation, draining) => (rotation.clone(), draining.proven),
            _ => return,
        };
        let keep = rotation.target;
        self.note(Note::DrainOver);
        let removed = self.r.accepted.iter().filter(|kid| *kid != keep).collect();
        self.shrink(&rotation, removed, |rotation, shrinking| Phase::Retire(rotation, Shrinking { proven, ..shrinking }));
        self.r.reaccepted.retain(|r| r.kid != keep);
        if let Phase::Retire(_, shrinking) = &self.r.phase {
            let removed = shrinking.removed.clone();
            self.note(Note::RetireBegan { keep, removed });
        }
    }

    /// Takes `removed` out of what is accepted, for good.
    pub fn shrink(&mut self, rotation: &Rotation, removed: super::KidSet, phase: impl FnOnce(Rotation, Shrinking) -> Phase) {
        for kid in removed.iter() {
            self.r.accepted.remove(kid);
            self.tombstone(kid, rotation.compromised);
        }
        self.r.next_generation();
        self.r.phase = phase(rotation.clone(), Shrinking { removed, proven: false });
        self.v.forget_proofs();
        self.v.timers.keystore_retry.clear();
        self.v.timers.ask_retry.clear();
    }

    pub fn tombstone(&mut self, kid: crate::secret::Kid, compromised: bool) {
        self.r.retired.retain(|retired| retired.kid != kid);
        self.r.retired.push(Retired { kid, compromised });
        if self.r.retired.len() > REMEMBERED {
            self.r.retired.remove(0);
        }
    }

    /// Every replica was shown to accept what stays and nothing of what went.
    pub fn complete(&mut self) {
        match &self.r.phase {
            Phase::Retire(rotation, shrinking) => {
                let (number, target, proven) = (rotation.number, rotation.target, shrinking.proven);
                self.r.current = Current::Known(target);
                self.r.confirmed = proven;
                self.note(Note::Completed { number, current: target });
            }
            Phase::Abort(rotation, _) => {
                let number = rotation.number;
                self.note(Note::Aborted { number });
            }
            _ => return,
        }
        self.keep();
        self.r.phase = Phase::Idle;
    }
}

/// How many retired kids the core remembers; the store remembers all of them.
const REMEMBERED: usize = 16;
