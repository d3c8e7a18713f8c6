//! Every state that the core can come to, with everything that can go wrong around it.

#[path = "model/action.rs"]
mod action;
#[path = "model/canon.rs"]
mod canon;
#[path = "model/check.rs"]
mod check;
#[path = "model/search.rs"]
mod search;
#[path = "model/world.rs"]
mod world;

use search::explore;
use world::Setup;

fn holds(setup: Setup) {
    let began = std::time::Instant::now();
    let outcome = explore(&setup);
    println!(
        "{}: {} states, {} edges, depth {}, complete {}, {:?}",
        setup.name,
        outcome.states,
        outcome.edges,
        outcome.depth,
        outcome.complete,
        began.elapsed()
    );
    println!("  {:?}", outcome.fired);
    if let Some(trace) = outcome.broken {
        panic!("{}: {}", setup.name, trace.print());
    }
    assert!(outcome.complete, "{}: the bound on states was too small", setup.name);
}

#[test]
fn base() {
    holds(Setup::base("base"));
}

#[test]
fn plain() {
    holds(Setup { rollback: false, abort: false, kids: 2, strays: 0, ..Setup::base("plain") });
}

#[test]
fn emergency() {
    holds(Setup { emergency: true, kids: 2, ..Setup::base("emergency") });
}

#[test]
fn supersede() {
    holds(Setup { supersede: true, rollback: false, strays: 0, ..Setup::base("supersede") });
}

#[test]
fn refused_by_the_consumer() {
    holds(Setup { rejects: true, kids: 2, rollback: false, ..Setup::base("rejects") });
}

#[test]
fn refused_by_dialnexa() {
    holds(Setup { refusals: true, kids: 2, rollback: false, ..Setup::base("refusals") });
}

#[test]
fn every_200_is_a_lie() {
    holds(Setup { lies: true, kids: 2, probes: true, ..Setup::base("lies") });
}

#[test]
fn restored() {
    holds(Setup { restore: true, kids: 4, rollback: false, abort: true, strays: 0, ..Setup::base("restored") });
}

#[test]
fn meddled() {
    holds(Setup { meddling: 1, kids: 2, rollback: false, abort: false, strays: 0, looks: true, ..Setup::base("meddled") });
}

#[test]
fn two_slots() {
    holds(Setup { slots: Some(2), supersede: true, kids: 3, strays: 0, ..Setup::base("two slots") });
}

#[test]
fn paused_and_reaccepted() {
    holds(Setup { pause: true, reaccept: true, kids: 3, rollback: false, strays: 0, ..Setup::base("paused") });
}
