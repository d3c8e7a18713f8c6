//! Waits as credit, and what a new process does first.
//!
//! A wait is credit that is gathered, never a deadline: a jump of the wall clock cannot shorten one.

use super::mutants::{self, Mutant};
use super::step::Core;
use super::volatile::{Accrued, KeystoreView, Line, Volatile};
use super::{Current, Event, Freshness, Hold, Millis, Note, Phase, Policy, Record};

/// The longest credit that a crash may lose.
const BANK_AT_MOST: Millis = 10_000;

impl Core {
    pub fn boot(&mut self, policy: Policy, identity: u64, restored: bool) {
        let moved = self.r.identity != identity;
        if matches!(self.r.phase.underlying(), Phase::Idle) {
            self.r.policy = policy;
            self.r.identity = identity;
        } else {
            // A wait that began under a longer promise keeps it.
            let before = self.r.policy;
            self.r.policy = Policy {
                quarantine: policy.quarantine.max(before.quarantine),
                drain: policy.drain.max(before.drain),
                slots: if moved { before.slots } else { policy.slots },
                ..policy
            };
            match (&self.r.phase, moved) {
                (Phase::Hold(Hold::ConfigDrift, was), false) => self.r.phase = (**was).clone(),
                (_, true) => self.hold(Hold::ConfigDrift),
                _ => {}
            }
        }
        if restored && self.r.current != Current::Missing && !mutants::on(Mutant::SilentResume) {
            self.restored();
        }
        if let (Phase::Push(rotation) | Phase::Patch(rotation, _), true) = (&self.r.phase, mutants::on(Mutant::RestartForgets)) {
            self.r.accepted.remove(rotation.target);
            self.r.next_generation();
            self.r.phase = Phase::Idle;
        }
    }

    /// The record is from another time. What is accepted now, only the keystore can tell: it is read before it is written.
    fn restored(&mut self) {
        self.note(Note::Restored);
        self.r.generation = self.r.generation.saturating_add(RESTORE_LEAP);
        self.r.kept = self.r.generation;
        self.reopen_everything();
        self.r.phase = self.r.phase.underlying().clone();
        self.hold(Hold::Restored);
    }

    /// Gives the credit gathered so far to the waits that were there while it was gathered, never to one that this event
    /// begins.
    pub fn settle_credit(&mut self, event: &Event) -> Settled {
        match event {
            Event::Boot { dark, .. } => {
                self.v = Volatile { booted: true, ..Volatile::default() };
                self.v.accrued.elapsed = *dark;
            }
            Event::Tick { elapsed, observed } => {
                self.v.timers.pass(*elapsed);
                self.v.accrued.elapsed = self.v.accrued.elapsed.saturating_add(*elapsed);
                self.v.accrued.observed = self.v.accrued.observed.saturating_add(*observed.min(elapsed));
            }
            _ => {}
        }
        let gathered = self.v.accrued;
        // What went by while a request was being answered must not be given to its quarantine afterwards.
        let ends = matches!((event, self.v.line), (Event::Patched { attempt, .. }, Line::Sent { attempt: ours, .. }) if *attempt == ours);
        let can_wait = !ends && credit_due(&self.r, &self.v, gathered).is_some_and(|left| left > 0);
        self.bank_credit(matches!(event, Event::Boot { .. }));
        Settled { record: self.r.clone(), gathered, can_wait }
    }

    /// Moves the gathered credit into the record. A quarantine begins when the exchange is over: until then the request may
    /// still be on our side of the wire, however long a machine slept over it. Of a process that died nobody knows when that was.
    fn bank_credit(&mut self, dark: bool) {
        let Accrued { elapsed, observed } = std::mem::take(&mut self.v.accrued);
        let (sending, whole) = (self.v.line.sending(), self.r.policy.quarantine);
        let dark = dark && !mutants::on(Mutant::DeadTimeCounts);
        let sent = |kid| Some(kid) == sending && !mutants::on(Mutant::QuarantineFromIntent);
        let begun = |kid, left| !(sent(kid) || dark && left >= whole);
        for open in &mut self.r.open {
            if begun(open.kid, open.left) {
                open.left = open.left.saturating_sub(elapsed);
            }
        }
        self.close_quarantined();
        self.bank_reaccepted(elapsed);
        let phase = match &mut self.r.phase {
            Phase::Hold(_, was) => was.as_mut(),
            phase => phase,
        };
        match phase {
            Phase::Patch(rotation, patching) => {
                if Some(rotation.target) != sending {
                    patching.doubt = patching.doubt.saturating_sub(elapsed);
                }
                if patching.seen > 0 || mutants::on(Mutant::DrainFromPatch) {
                    patching.span = patching.span.saturating_add(observed);
                }
                if let Freshness::Waiting { left } = &mut patching.freshness {
                    *left = left.saturating_sub(observed);
                    if *left == 0 {
                        patching.freshness = Freshness::Fresh;
                    }
                }
            }
            Phase::Drain(_, draining) => draining.left = draining.left.saturating_sub(observed),
            _ => {}
        }
    }

    /// Forgets the attempts whose quarantine is over, but for the one that is still being answered.
    pub fn close_quarantined(&mut self) {
        let sending = self.v.line.sending();
        let closed: Vec<_> =
            self.r.open.iter().filter(|open| open.left == 0 && Some(open.kid) != sending).map(|open| open.kid).collect();
        self.r.open.retain(|open| !closed.contains(&open.kid));
        self.notes.extend(closed.into_iter().map(|kid| Note::QuarantineOver { kid }));
    }

    fn bank_reaccepted(&mut self, elapsed: Millis) {
        if !matches!(self.r.phase, Phase::Idle) {
            return;
        }
        let mut over = Vec::new();
        for reaccepted in &mut self.r.reaccepted {
            reaccepted.left = reaccepted.left.saturating_sub(elapsed);
            if reaccepted.left == 0 {
                over.push(reaccepted.kid);
            }
        }
        if !over.is_empty() {
            self.r.reaccepted.retain(|r| !over.contains(&r.kid));
            self.r.next_generation();
            self.v.forget_proofs();
            self.notes.extend(over.into_iter().map(|kid| Note::ReacceptOver { kid }));
        }
    }
}

/// The record with its credit up to date, and the credit that made it so.
pub(super) struct Settled {
    pub record: Record,
    pub gathered: Accrued,
    /// The credit completes no wait and is too little for a commit of its own.
    pub can_wait: bool,
}

/// Content numbers that a forgotten write may have used.
const RESTORE_LEAP: u64 = 1000;

/// The credit that is still waited for: total and what is left of it, in `elapsed` and in `observed` time.
fn waits<'a>(record: &'a Record, volatile: &Volatile) -> impl Iterator<Item = (Millis, Millis, bool)> + 'a {
    let (policy, sending) = (record.policy, volatile.line.sending());
    let open = record.open.iter().filter(move |open| Some(open.kid) != sending);
    let open = open.map(move |open| (policy.quarantine, open.left, false));
    let reaccepted = record.reaccepted.iter().filter(|_| record.phase == Phase::Idle).map(|r| (BANK_AT_MOST * 10, r.left, false));
    let phase = match record.phase.underlying() {
        Phase::Patch(_, patching) => match patching.freshness {
            Freshness::Waiting { left } => Some((policy.drain, left, true)),
            _ if patching.seen > 0 && patching.span < policy.min_span => {
                Some((policy.min_span, policy.min_span - patching.span, true))
            }
            _ => None,
        },
        Phase::Drain(_, draining) if draining.left > 0 => Some((policy.drain, draining.left, true)),
        _ => None,
    };
    open.chain(reaccepted).chain(phase)
}

/// The keystore was written before and not looked at in this life: an older one may have been put back meanwhile.
pub(super) fn unread(record: &Record, volatile: &Volatile) -> bool {
    record.generation > 0 && volatile.keystore == KeystoreView::Unknown
}

/// How long until gathered credit has to be put on record: `Some(0)` is now.
fn credit_due(record: &Record, volatile: &Volatile, accrued: Accrued) -> Option<Millis> {
    waits(record, volatile)
        .map(|(total, left, observed)| {
            let have = if observed { accrued.observed } else { accrued.elapsed };
            let portion = (total / 10).clamp(1, BANK_AT_MOST);
            portion.min(left).saturating_sub(have)
        })
        .min()
}

/// When the shell should tick next, if nothing else happens. `None`: there is nothing to wait for.
pub fn wake_in(record: &Record, volatile: &Volatile) -> Option<Millis> {
    let timers = &volatile.timers;
    let running = [
        timers.wait,
        timers.look,
        timers.keystore_retry.left,
        timers.ask_retry.left,
        timers.line_retry.left,
        timers.webhook_retry.left,
    ];
    let active = record.phase != Phase::Idle || unread(record, volatile);
    let timers = running.into_iter().filter(|left| active && *left > 0).min();
    let credit = credit_due(record, volatile, volatile.accrued).map(|left| left.max(1));
    [timers, credit].into_iter().flatten().min()
}
