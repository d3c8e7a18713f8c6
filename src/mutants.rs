//! The program around the core with one rule broken, so that the simulation can be shown to notice, as
//! [`rotation::mutants`](crate::rotation::mutants) is for the core. Each is a one-line switch in the code that keeps the rule;
//! without the feature `mutants` the switch is `false` for the compiler too.

/// One broken rule each. docs/testing.md says what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutants"), allow(dead_code))]
pub enum Mutant {
    EffectsBeforeCommit,
    AcknowledgedBeforeCommit,
    AnchorStays,
    FenceIgnored,
    ProbesForgotten,
    UnwatchedDrain,
    StoreReadFirst,
    KeystoresInTurn,
    AnswerToTheTarget,
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

    pub(crate) fn on(mutant: Mutant) -> bool {
        ACTIVE.with(Cell::get) == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub(crate) use switch::on;
#[cfg(feature = "mutants")]
pub use switch::set;

#[cfg(not(feature = "mutants"))]
pub(crate) const fn on(_: Mutant) -> bool {
    false
}
