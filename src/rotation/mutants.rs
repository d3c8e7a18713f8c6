//! The protocol with one rule broken, so that the model checker can be shown to notice. Each is a one-line switch in the code
//! that keeps the rule; without the feature `mutants` the switch is `false` for the compiler too. What a broken rule needs beside
//! its switch is at the end of this file.

use super::{Cause, Open, Phase, Record, Verdict, Volatile};
use crate::secret::Kid;

macro_rules! rules {
    ($($name:ident,)*) => {
        /// One broken rule each. docs/mutants.md shows what comes of it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(not(feature = "mutants"), allow(dead_code))]
        pub enum Mutant {
            $($name,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            pub fn named(name: &str) -> Option<Mutant> {
                match name {
                    $(stringify!($name) => Some(Mutant::$name),)*
                    _ => None,
                }
            }
        }
    };
}

rules! {
    PatchBeforePush,
    NoAcceptanceProof,
    OneReplicaIsEnough,
    RetireOn200,
    NoDrain,
    DrainFromPatch,
    RestartForgets,
    IgnoreOpenAttempts,
    RollbackTrusts200,
    StaleEvidence,
    TimeoutMeansNotApplied,
    EffectBeforeIntent,
    NoQuarantine,
    SilentResume,
    CompleteOnReadBack,
    ProbeIsEvidence,
    OkStopsReassertion,
    SwitchProofAlone,
    NoReproof,
    LeakForgotten,
    NoLastLook,
    ProofsSurviveOverwrite,
    AnyAnswerCounts,
    QuarantineFromIntent,
    DeadTimeCounts,
    NoFreshnessWait,
    ProofsSurviveChange,
    AnswerClosesOthers,
    EmergencyBelievesAny200,
    FullKeystoreOverwritten,
    ResumeUnread,
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks one rule on this thread, or mends it.
    pub fn set(mutant: Option<Mutant>) {
        ACTIVE.with(|active| active.set(mutant));
    }

    pub(in crate::rotation) fn on(mutant: Mutant) -> bool {
        ACTIVE.with(Cell::get) == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub(super) use switch::on;
#[cfg(feature = "mutants")]
pub use switch::set;

#[cfg(not(feature = "mutants"))]
pub(super) const fn on(_: Mutant) -> bool {
    false
}

/// Without the proof that every replica accepts what it should.
pub(super) fn proven(record: &Record, volatile: &Volatile) -> bool {
    on(Mutant::NoAcceptanceProof)
        || on(Mutant::OneReplicaIsEnough) && volatile.verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Accepts)
        || on(Mutant::CompleteOnReadBack) && matches!(record.phase, Phase::Retire(..) | Phase::Abort(..))
        || on(Mutant::SwitchProofAlone) && volatile.reproving
}

/// By a 200 instead of a delivery.
pub(super) fn ready_to_retire(phase: &Phase) -> Option<bool> {
    let Phase::Patch(rotation, patching) = phase else { return None };
    if on(Mutant::RetireOn200) {
        return Some(patching.answered);
    }
    on(Mutant::RollbackTrusts200).then_some(rotation.cause == Cause::Rollback && patching.answered)
}

pub(super) fn close_others(open: &mut Vec<Open>, kid: Kid) {
    open.retain(|open| open.kid == kid);
}

pub(super) fn close(open: &mut Vec<Open>, kid: Kid) {
    open.retain(|open| open.kid != kid);
}
