//! The protocol with one rule broken, so that the checkers can be shown to notice. Built only with the feature `mutants`.

use std::cell::Cell;

/// One broken rule each; the names follow the table of naive variants in docs/protocol.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    PatchBeforePush,
    NoAcceptanceProof,
    OneReplicaIsEnough,
    RetireOn200,
    NoDrain,
    IgnoreOpenAttempts,
    RollbackTrusts200,
    StaleEvidence,
    TimeoutMeansNotApplied,
    EffectBeforeIntent,
    SilentResume,
    CompleteOnReadBack,
    ProbeIsEvidence,
    OkStopsReassertion,
    NoReproof,
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Breaks one rule on this thread, or mends it.
pub fn set(mutant: Option<Mutant>) {
    ACTIVE.with(|active| active.set(mutant));
}

pub(super) fn active() -> Option<Mutant> {
    ACTIVE.with(Cell::get)
}
