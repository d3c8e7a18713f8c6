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
