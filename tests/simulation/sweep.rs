//! Many runs, on every core.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    counts::Counts,
    run::{play, shrink},
    setup::Setup,
};

/// What came of many runs.
#[derive(Default)]
pub struct Sum {
    pub runs: u64,
    pub counts: Counts,
    /// The first run that went wrong, in the order of seeds.
    pub failing: Option<(Setup, String)>,
}

/// Plays the runs of `first`, `first + 1` and so on until there are enough rotations, or something is wrong.
pub fn sweep(first: u64, enough: u64, make: impl Fn(u64) -> Setup + Sync) -> Sum {
    let (next, stop, sum) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Sum::default()));
    let told = Mutex::new(Instant::now());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let setup = make(next.fetch_add(1, Ordering::Relaxed));
            let outcome = play(&setup);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.runs += 1;
            sum.counts.add(&outcome.counts);
            if let Some(wrong) = outcome.verdict
                && sum.failing.as_ref().is_none_or(|(failing, _)| failing.seed > setup.seed)
            {
                sum.failing = Some((setup, wrong));
            }
            if sum.failing.is_some() || sum.counts.rotations >= enough {
                stop.store(true, Ordering::Relaxed);
            }
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.elapsed() > Duration::from_secs(30) {
                *told = Instant::now();
                println!("{} runs, {} rotations so far", sum.runs, sum.counts.rotations);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Why a run failed: the shortest form of it that still does, its last events, and the line that plays it again.
pub fn explain(failing: &Setup, wrong: &str) -> String {
    let (small, outcome) = shrink(failing);
    let tail = outcome.tail.join("\n");
    let shrunk = outcome.verdict.unwrap_or_default();
    format!(
        "seed {}: {wrong}\n\nshrunk to {} rotations and {:?}:\n{tail}\n\n{shrunk}\n\n{}",
        failing.seed,
        small.rotations,
        small.faults,
        small.replay()
    )
}
