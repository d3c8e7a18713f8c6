//! What one rotation costs beyond what it cannot do without: `cargo bench --bench rotation`
//!
//! | figure | what it is |
//! |---|---|
//! | floor | the HTTP exchanges, fsyncs and file replacements that a rotation needs, done bare and in the same order ([`floor`]) |
//! | ours | a whole rotation by the daemon, from the request to `completed`, every wait configured to zero |
//! | memory | the resident memory of an idle `hookturn run` |
//! | status | the wall time of one `hookturn status` |
//!
//! Both are measured in turn, in one run, against the same counterpart, on the same disk: TMPDIR says which. Exits 1 where an
//! aim is missed (`-- --report-only`: never).

mod counterpart;
mod daemon;
mod floor;
mod process;

use std::{process::ExitCode, time::Duration};

use counterpart::Counterpart;

/// How often each is measured; the median counts.
const ROUNDS: usize = 15;
const RATIO_AT_MOST: f64 = 1.5;
const MEMORY_AT_MOST_MIB: f64 = 20.0;
const STATUS_AT_MOST: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let met = runtime.block_on(measure());
    match met || std::env::args().any(|argument| argument == "--report-only") {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

async fn measure() -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let counterpart = Counterpart::start(dir.path());
    let rotations = daemon::Rotations::start(dir.path(), &counterpart).await;
    let bare = floor::Floor::new(dir.path(), &counterpart);
    let (mut floors, mut ours, mut phases) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each warms up.
    for round in 0..=ROUNDS {
        let floor = bare.once().await;
        let (took, timeline) = rotations.once().await;
        if round > 0 {
            floors.push(floor);
            ours.push(took);
            phases.push(timeline);
        }
    }
    let exchanges = counterpart.exchanges();
    rotations.stop().await;
    let (floor, took) = (median(&mut floors), median(&mut ours));
    let ratio = took.as_secs_f64() / floor.as_secs_f64();
    println!("one rotation, median of {ROUNDS} (all waits zero, one replica)");
    println!("  floor {:>9.2?}   {}", floor, floor::NEEDS);
    println!("  ours  {:>9.2?}   {exchanges}; {}", took, daemon::slowest(&phases));
    println!("  ratio {ratio:>8.2}x   aim: at most {RATIO_AT_MOST}x");

    let running = process::Running::start(dir.path(), &counterpart).await;
    let memory = running.idle_memory_mib().await;
    let status = running.status_time();
    println!("idle memory of `hookturn run` {memory:>6.1} MiB   aim: under {MEMORY_AT_MOST_MIB} MiB");
    println!("`hookturn status` {:>18.1?}   aim: under {STATUS_AT_MOST:?}", status);
    ratio <= RATIO_AT_MOST && memory < MEMORY_AT_MOST_MIB && status < STATUS_AT_MOST
}

fn median(of: &mut [Duration]) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}
