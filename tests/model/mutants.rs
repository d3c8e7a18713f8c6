//! Each rule of the protocol, broken: by a switch in the core, or by an assumption about the world that no longer holds. The
//! search must find what comes of it.

use super::{
    check::Property,
    search::{Outcome, explore},
    setup::{Assumption, Setup},
};

/// One broken rule, and the property that it must be seen to break.
pub struct Case {
    pub title: &'static str,
    breaks: Rule,
    pub expected: Property,
    setup: Setup,
}

enum Rule {
    #[cfg(feature = "mutants")]
    Of(hookturn::rotation::mutants::Mutant),
    World(Assumption),
}

impl Case {
    /// Searches with the rule broken. Only the expected property is looked for.
    pub fn run(&self) -> Outcome {
        let broken = match self.breaks {
            Rule::World(assumption) => Some(assumption),
            #[cfg(feature = "mutants")]
            Rule::Of(mutant) => {
                hookturn::rotation::mutants::set(Some(mutant));
                None
            }
        };
        let check = Box::leak(Box::new([self.expected]));
        let setup = Setup { name: self.title, broken, mutant: true, check, most_states: 3_000_000, ..self.setup.clone() };
        let outcome = explore(&setup);
        #[cfg(feature = "mutants")]
        hookturn::rotation::mutants::set(None);
        outcome
    }
}

fn plain() -> Setup {
    Setup { kids: 2, quarantine: 1, ..Setup::plain("") }
}

fn back() -> Setup {
    Setup { rollback: true, ..plain() }
}

/// What the guarantees rest on: without it they do not hold, and nothing in the core can help.
pub fn assumptions() -> Vec<Case> {
    let case = |title, assumption, expected, setup| Case { title, breaks: Rule::World(assumption), expected, setup };
    vec![
        case("a PATCH is applied after Q", Assumption::Quarantine, Property::NeverLost, back()),
        case("a delivery is retried after D", Assumption::Drain, Property::NoReject, plain()),
        case(
            "a keystore without a condition",
            Assumption::ConditionalWrite,
            Property::Coverage,
            Setup { abort: true, kids: 3, ..plain() },
        ),
        case("a replica goes back", Assumption::ReplicasGoForward, Property::Coverage, plain()),
        case("intents are not fenced", Assumption::Fencing, Property::NeverLost, back()),
        case(
            "an emergency believes a lying 200",
            Assumption::None,
            Property::NeverLost,
            Setup { emergency: true, lies: true, ..plain() },
        ),
    ]
}

#[cfg(not(feature = "mutants"))]
pub fn naive() -> Vec<Case> {
    Vec::new()
}

/// The naive variants.
#[cfg(feature = "mutants")]
pub fn naive() -> Vec<Case> {
    use Property::*;
    use hookturn::rotation::mutants::Mutant::*;
    let case = |title, mutant, expected, setup| Case { title, breaks: Rule::Of(mutant), expected, setup };
    vec![
        case("PATCH before the keystore has it", PatchBeforePush, Coverage, plain()),
        case("the keystore's read-back is enough", NoAcceptanceProof, Coverage, plain()),
        case("one replica is enough", OneReplicaIsEnough, Coverage, plain()),
        case("retire on the 200", RetireOn200, NoReject, plain()),
        case("no drain", NoDrain, NoReject, plain()),
        case("the drain counts from the PATCH", DrainFromPatch, NoReject, plain()),
        case("a restart makes a new secret", RestartForgets, NeverLost, Setup { kids: 3, ..plain() }),
        case(
            "a new rotation ignores open attempts",
            IgnoreOpenAttempts,
            NeverLost,
            Setup { supersede: true, kids: 3, ..plain() },
        ),
        case("a rollback trusts its 200", RollbackTrusts200, NeverLost, back()),
        case("a rollback takes any delivery for evidence", StaleEvidence, NeverLost, back()),
        case("a time-out means not applied", TimeoutMeansNotApplied, NeverLost, Setup { abort: true, ..plain() }),
        case("the effect before the intent", EffectBeforeIntent, NeverLost, Setup { abort: true, ..plain() }),
        case("a person turns back to what has leaked", LeakForgotten, LeakedStaysOut, Setup { emergency: true, ..back() }),
        case("quarantine ignored", NoQuarantine, NeverLost, Setup { quarantine: 2, ..back() }),
        case("a backup is resumed in silence", SilentResume, NeverLost, Setup { restore: true, abort: true, ..plain() }),
        case("complete on the keystore's read-back", CompleteOnReadBack, RetiredMeansRetired, plain()),
        case("an own probe is evidence", ProbeIsEvidence, NeverLost, Setup { noise: true, ..plain() }),
        case("a 200 stops the repetition", OkStopsReassertion, Liveness, Setup { lies: true, ..plain() }),
        case("a delivery seen is all the proof there is", SwitchProofAlone, BothProofs, plain()),
        case("no second proof before the retire", NoReproof, BothProofs, plain()),
        case("no look at the keystore after the last proof", NoLastLook, ProvenBeforePatch, plain()),
        case(
            "proofs survive somebody else's write",
            ProofsSurviveOverwrite,
            ProvenBeforePatch,
            Setup { meddling: 1, looks: true, strays: 0, replicas: 1, ..plain() },
        ),
        case("any answer counts for any target", AnyAnswerCounts, Heeded, Setup { rejects: true, ..plain() }),
        case("the quarantine counts from the intent", QuarantineFromIntent, NeverLost, back()),
        case("a quarantine runs while the process is dead", DeadTimeCounts, NeverLost, Setup { dark: true, ..back() }),
        case("no wait for freshness", NoFreshnessWait, NeverLost, Setup { drain: 2, ..back() }),
        case("verdicts survive another content", ProofsSurviveChange, RetiredMeansRetired, plain()),
        case("a 200 closes the other attempts", AnswerClosesOthers, NeverLost, back()),
        case(
            "an emergency believes any 200",
            EmergencyBelievesAny200,
            NeverLost,
            Setup { emergency: true, supersede: true, kids: 3, ..plain() },
        ),
        case(
            "a full keystore is written over",
            FullKeystoreOverwritten,
            NeverLost,
            Setup { slots: Some(2), restore: true, kids: 3, ..plain() },
        ),
        case(
            "a restored store is resumed before the keystore is read",
            ResumeUnread,
            NeverLost,
            Setup { restore: true, abort: true, kids: 3, ..plain() },
        ),
    ]
}
