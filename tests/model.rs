//! Every state that the core can come to, with everything that can go wrong around it.
//!
//!     cargo test --release --test model                       the slice that CI runs
//!     cargo test --release --features mutants --test model    and: every naive variant of the protocol is caught
//!     HOOKTURN_MODEL=long cargo test --release --test model   tens of millions of states; =500000: each search up to so many
//!
//! What follows `--` picks searches whose name contains it; `--markdown` prints the traces of docs/protocol.md.

#[path = "model/action.rs"]
mod action;
#[path = "model/apply.rs"]
mod apply;
#[path = "model/canon.rs"]
mod canon;
#[path = "model/check.rs"]
mod check;
#[path = "model/hashing.rs"]
mod hashing;
#[path = "model/kids.rs"]
mod kids;
#[path = "model/lists.rs"]
mod lists;
#[path = "model/mutants.rs"]
mod mutants;
#[path = "model/search.rs"]
mod search;
#[path = "model/setup.rs"]
mod setup;
#[path = "model/trace.rs"]
mod trace;
#[path = "model/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use action::Action;
use mutants::Case;
use search::{Fired, Outcome, explore};
use setup::Setup;

/// Up to so many states of each of the larger searches. Two at once take about 4 GiB.
const LONG: usize = 5_000_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut setups = lists::slice();
    if let Ok(mode) = std::env::var("HOOKTURN_MODEL") {
        let bound = if mode == "long" { Ok(LONG) } else { mode.parse() };
        let Ok(most_states) = bound else {
            println!("HOOKTURN_MODEL is neither `long` nor a number of states: {mode}");
            return ExitCode::FAILURE;
        };
        // Larger than memory, some of them: what is reached within the bound is judged, and said to be no more than that.
        setups.extend(lists::long().into_iter().map(|setup| Setup { most_states, partial: true, ..setup }));
    }
    setups.retain(|setup| names.is_empty() || names.iter().any(|name| setup.name.contains(name.as_str())));
    if cfg!(debug_assertions) && args.is_empty() {
        println!("skipped: all but one search of the model (cargo test --release --features mutants --test model runs them)");
        setups.retain(|setup| setup.name == "replicas come and go");
        return if searches(&setups) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if args.iter().any(|arg| arg == "--mutants") {
        setups.clear();
    }
    let mut held = searches(&setups);
    let mut cases = mutants::naive();
    cases.extend(mutants::assumptions());
    cases.retain(|case| names.is_empty() || names.iter().any(|name| case.title.contains(name.as_str())));
    held &= caught(&cases, args.iter().any(|arg| arg == "--markdown"));
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs `work` on each item, on two threads.
fn on_two_threads<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

fn searches(setups: &[Setup]) -> bool {
    let total = Mutex::new((Fired::default(), 0usize, 0usize, true));
    on_two_threads(setups, |setup| {
        let outcome = explore(setup);
        let Ok(mut total) = total.lock() else { return };
        report(setup, &outcome);
        total.0.add(&outcome.fired);
        total.1 += outcome.states;
        total.2 += outcome.edges;
        total.3 &= outcome.broken.is_none() && (outcome.complete || setup.partial);
    });
    let Ok((fired, states, edges, held)) = total.into_inner() else { return false };
    if !setups.is_empty() {
        println!("in total: {states} states, {edges} edges, {} transitions", fired.transitions.len());
        println!("  what never happened: {:?}", never(&fired));
        println!("  phase and event that never met: {:?}", never_met(&fired));
        println!("  noted: {:?}", fired.notes);
    }
    held
}

/// Pairs of a phase and an event that were neither taken nor refused.
fn never_met(fired: &Fired) -> Vec<String> {
    let met = |phase, event| {
        fired.refused.contains(&(phase, event)) || fired.transitions.iter().any(|(was, of, _)| (*was, *of) == (phase, event))
    };
    let phases: BTreeSet<_> = fired.transitions.iter().map(|(was, ..)| *was).collect();
    let events: BTreeSet<_> = fired.transitions.iter().map(|(_, event, _)| *event).collect();
    let pairs = phases.iter().flat_map(|phase| events.iter().map(move |event| (*phase, *event)));
    pairs.filter(|(phase, event)| !met(phase, event)).map(|(phase, event)| format!("{phase}/{event}")).collect()
}

const PAGE: &str = include_str!("../docs/mutants.md");

/// Every broken rule must be found out, in the way that docs/mutants.md shows.
fn caught(cases: &[Case], markdown: bool) -> bool {
    let all = Mutex::new(true);
    on_two_threads(cases, |case| {
        let outcome = case.run();
        let Ok(mut all) = all.lock() else { return };
        match &outcome.broken {
            Some(trace) => {
                let table = trace.markdown();
                if markdown {
                    println!("### {}\n\n{}.\n\n{table}", case.title, trace.broken.what);
                    return;
                }
                println!("caught: {}: {:?} in {} steps, {} states", case.title, case.expected, trace.len(), outcome.states);
                println!("{}", trace.print());
                if !PAGE.contains(&table) {
                    println!("docs/mutants.md shows another trace: run with -- --mutants --markdown");
                    *all = false;
                }
            }
            None => {
                println!("SURVIVED: {}: {} states, complete {}", case.title, outcome.states, outcome.complete);
                *all = false;
            }
        }
    });
    all.into_inner().unwrap_or(false)
}

fn report(setup: &Setup, outcome: &Outcome) {
    let Outcome { states, edges, depth, took, .. } = outcome;
    println!("{}: {states} states, {edges} edges, depth {depth}, {:.1} s", setup.name, took.as_secs_f64());
    println!("  what did not happen: {}", never(&outcome.fired).join(" "));
    if let Some(trace) = &outcome.broken {
        println!("BROKEN\n{}", trace.print());
    } else if !outcome.complete && setup.partial {
        println!("  stopped there: liveness not judged, and nothing that is further than depth {depth}");
    } else if !outcome.complete {
        println!("NOT COMPLETE: the bound on states is too small");
    }
}

fn never(fired: &Fired) -> Vec<&'static str> {
    Action::NAMES.iter().copied().filter(|name| !fired.actions.contains_key(name)).collect()
}
