//! The whole daemon in a simulated world: a seed is a run, the same every time.

#[path = "simulation/consumer.rs"]
mod consumer;
#[path = "simulation/counts.rs"]
mod counts;
#[path = "simulation/dialnexa.rs"]
mod dialnexa;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/host.rs"]
mod host;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/person.rs"]
mod person;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/setup.rs"]
mod setup;
#[path = "simulation/sweep.rs"]
mod sweep;
#[path = "simulation/time.rs"]
mod time;
#[path = "simulation/world.rs"]
mod world;

use run::play;
use setup::{Fault, Setup, Wrong};
use sweep::{explain, sweep};

/// Half of what a run costs is small pieces of memory.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Enough for a look at every mixture of faults; `HOOKTURN_SIMULATION=5000000` looks longer. A build that is not optimised
/// is slow, and looks at a few.
const ROTATIONS: u64 = if cfg!(debug_assertions) { 150 } else { 20_000 };

#[test]
fn no_delivery_is_lost_and_everything_ends() {
    let enough = number("HOOKTURN_SIMULATION").unwrap_or(ROTATIONS);
    let first = number("HOOKTURN_FIRST_SEED").unwrap_or(1);
    let began = std::time::Instant::now();
    let sum = sweep(first, enough, Setup::of);
    println!("{} runs from seed {first} in {:?}\n{}", sum.runs, began.elapsed(), sum.counts);
    if let Some((failing, wrong)) = &sum.failing {
        panic!("{}", explain(failing, wrong));
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 1..=4 {
        let (one, other) = (play(&Setup::of(seed)), play(&Setup::of(seed)));
        assert_eq!((one.hash, one.counts), (other.hash, other.counts), "seed {seed}");
    }
}

/// Seeds that have found something once: a start whose first commit took long counted as watched, before its doors were open; a
/// rotation that a resume began, beside a full keystore, had no beginning in the journal.
#[test]
fn what_was_found_stays_mended() {
    for seed in [426, 1194, 1297] {
        assert_eq!(play(&Setup::of(seed)).verdict, None, "seed {seed}");
    }
}

/// A configuration that promises a tenth of what the world keeps.
#[test]
fn a_drain_or_a_quarantine_that_is_too_short_is_found() {
    for (wrong, fault) in [(Wrong::ShortDrain, Fault::Repeats), (Wrong::ShortQuarantine, Fault::Late)] {
        let sum = sweep(1, ENOUGH_TO_BITE, |seed| Setup::of(seed).under(&[fault]).wrong(wrong));
        let (failing, why) =
            sum.failing.unwrap_or_else(|| panic!("{wrong:?} is not found in {} rotations", sum.counts.rotations));
        println!("{wrong:?}: seed {}, after {} runs: {why}", failing.seed, sum.runs);
    }
}

/// Eight keystores that take two seconds each to be read do not hold a start up for sixteen.
#[test]
fn slow_keystores_are_read_at_the_same_time() {
    let setup = Setup { webhooks: 8, read_within: 1_900, faults: Vec::new(), ..Setup::of(1) };
    let took = run::starts_within(&setup);
    assert!(took < 2_500, "{took} ms");
    #[cfg(feature = "mutants")]
    {
        let mutant = Some(setup::Mutant::Shell(hookturn::mutants::Mutant::KeystoresInTurn));
        let took = run::starts_within(&Setup { mutant, ..setup });
        assert!(took > 2_500, "{took} ms");
    }
}

/// So many rotations at the most until something that is broken on purpose is found.
const ENOUGH_TO_BITE: u64 = if cfg!(debug_assertions) { 500 } else { 600 };

/// Rules that are broken on purpose, each under faults that make it matter, from a seed that is not far from one that shows it.
/// docs/testing.md says which are left to the model.
#[cfg(feature = "mutants")]
#[test]
fn broken_rules_are_found() {
    use Fault::*;
    use hookturn::{mutants::Mutant as Shell, rotation::mutants::Mutant as Core};
    use setup::Mutant;
    let core = |mutant, first, faults: &'static [Fault]| (Mutant::Core(mutant), first, faults);
    let shell = |mutant, first, faults: &'static [Fault]| (Mutant::Shell(mutant), first, faults);
    let mutants = [
        shell(Shell::EffectsBeforeCommit, 1, &[]),
        shell(Shell::AcknowledgedBeforeCommit, 1, &[]),
        shell(Shell::AnchorStays, 1, &[]),
        shell(Shell::FenceIgnored, 1, &[Takeover]),
        shell(Shell::ProbesForgotten, 1, &[Lost, LyingOk]),
        shell(Shell::UnwatchedDrain, 4, &[Shut, Stops]),
        shell(Shell::StoreReadFirst, 33, &[Onlooker]),
        shell(Shell::AnswerToTheTarget, 1, &[Turns]),
        core(Core::PatchBeforePush, 1, &[]),
        core(Core::NoAcceptanceProof, 1, &[]),
        core(Core::OneReplicaIsEnough, 1, &[]),
        core(Core::RetireOn200, 1, &[]),
        core(Core::NoDrain, 1, &[]),
        core(Core::DrainFromPatch, 1, &[Repeats, Late]),
        core(Core::RestartForgets, 1, &[Crash]),
        core(Core::RollbackTrusts200, 9, &[]),
        core(Core::TimeoutMeansNotApplied, 4, &[]),
        core(Core::EffectBeforeIntent, 1, &[]),
        core(Core::NoQuarantine, 1, &[Turns, Late]),
        core(Core::SilentResume, 9, &[Restore, Crash, Late, Turns]),
    ];
    let mut missed = Vec::new();
    for (mutant, first, faults) in mutants {
        let began = std::time::Instant::now();
        let make = |seed| {
            let setup = Setup { mutant: Some(mutant), ..Setup::of(seed).under(faults) };
            // Who looks has to be slow to see two different moments.
            let read_within = if faults.contains(&Onlooker) { 1_800 } else { setup.read_within };
            Setup { read_within, ..setup }
        };
        let sum = sweep(first, ENOUGH_TO_BITE, make);
        let took = began.elapsed();
        let Some((failing, why)) = sum.failing else {
            println!("{mutant:?}: not found in {took:.1?}");
            missed.push(mutant);
            continue;
        };
        println!("{mutant:?}: seed {}, {} runs, {took:.1?}: {why:.160}", failing.seed, sum.runs);
        let mended = play(&Setup { mutant: None, ..failing });
        assert_eq!(mended.verdict, None, "{mutant:?}: and without it all the same");
    }
    assert!(missed.is_empty(), "not found in {ENOUGH_TO_BITE} rotations each: {missed:?}");
}

/// Plays the run that the environment names, and says what came of it.
#[test]
fn replay() {
    let Some(seed) = number("HOOKTURN_SEED") else { return };
    let mut setup = Setup::of(seed);
    if let Some(rotations) = number("HOOKTURN_ROTATIONS") {
        setup.rotations = rotations;
    }
    let named = |variable| {
        let names = std::env::var(variable).unwrap_or_default();
        let fault = |name: &str| Fault::parse(name).unwrap_or_else(|| panic!("there is no fault {name}"));
        names.split(',').filter(|name| !name.is_empty()).map(fault).collect::<Vec<_>>()
    };
    setup = setup.under(&named("HOOKTURN_WITH"));
    for fault in named("HOOKTURN_WITHOUT") {
        setup = setup.without(fault);
    }
    let outcome = play(&setup);
    println!("{}\ntrace {:016x}\n{}", setup.replay(), outcome.hash, outcome.counts);
    if let Some(wrong) = outcome.verdict {
        panic!("{wrong}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
