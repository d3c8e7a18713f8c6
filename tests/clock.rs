//! Clocks that jump and processes that stop: no wait is shorter for it. The real daemon, with `tests/clock/wall.c` preloaded,
//! which moves its wall clock by what a file says.

mod rig;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use hookturn::{daemon::Status, sandbox::consumer::Behaviour};
use rig::{Moment, Rig};
use rustix::process::Signal;

const YEAR: i64 = 365 * 86_400;

async fn with_a_wall_clock() -> Option<(Rig, PathBuf, tempfile::TempDir)> {
    let library = tempfile::tempdir().expect("a directory");
    let preload = rig::preload("tests/clock/wall.c", library.path())?;
    let mut rig = Rig::new().await;
    let step = rig.dir.path().join("wall-clock-step");
    rig.environment = vec![("LD_PRELOAD", preload), ("WALL_CLOCK_STEP", step.clone())];
    Some((rig, step, library))
}

fn set(step: &PathBuf, seconds: i64) {
    let next = step.with_extension("next");
    fs::write(&next, seconds.to_string()).expect("write");
    fs::rename(next, step).expect("rename");
}

/// The drain has ended, and not before its time: `status` was asked before `since`.
fn not_before(since: Instant, status: &Status) {
    // What was gathered and not put on record yet when the status was made.
    let gathered = Duration::from_millis(500);
    let left = Duration::from_millis(status.drain_left_ms.expect("in the drain"));
    assert!(since.elapsed() + gathered >= left, "{left:?} were left, and it took {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_wall_clock_that_jumps_years_shortens_no_wait_and_stops_nothing() {
    let cells = Moment::ALL.into_iter().flat_map(|moment| [(5, moment), (-5, moment)]);
    futures_util::future::join_all(cells.map(|(years, moment)| jump(years, moment))).await;
}

async fn jump(years: i64, moment: Moment) {
    let Some((mut rig, step, _library)) = with_a_wall_clock().await else { return };
    rig.settle_in().await;
    rig.reach(moment).await;
    let status = rig.status().await.expect("a status");
    let before = Instant::now();
    set(&step, years * YEAR);
    if moment == Moment::Idle {
        rig.rotate().await;
    }
    rig.behave(Behaviour::Good);
    rig.traffic(true);
    if moment == Moment::Drain {
        rig.until("the retire", |_, status| status.phase != "drain").await;
        not_before(before, &status);
    }
    let status = rig.until("the end", |_, status| status.completed == status.rotation && status.rotation > 0).await;
    assert_eq!(status.hold, None);
    rig.kill().await;
    rig.begin();
    rig.until("a daemon", |_, status| status.confirmed).await;
    rig.rotate().await;
    rig.until("another rotation", |_, now| now.completed == status.completed + 1).await;
    rig.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_daemon_that_was_dead_while_the_wall_clock_jumped_gets_no_credit_for_it() {
    futures_util::future::join_all([5, -5].map(dead_meanwhile)).await;
}

async fn dead_meanwhile(years: i64) {
    let Some((mut rig, step, _library)) = with_a_wall_clock().await else { return };
    rig.settle_in().await;
    rig.reach(Moment::Drain).await;
    rig.kill().await;
    set(&step, years * YEAR);
    let before = Instant::now();
    rig.begin();
    let status = rig.until("a daemon in the drain", |_, status| status.drain_left_ms.is_some()).await;
    assert_eq!(status.phase, "drain", "{years} years");
    rig.until("the retire", |_, status| status.phase != "drain").await;
    not_before(before, &status);
    rig.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_stopped_daemon_observes_nothing() {
    let mut rig = Rig::new().await;
    rig.settle_in().await;
    rig.reach(Moment::Drain).await;
    let status = rig.status().await.expect("a status");
    rig.signal(Signal::STOP);
    // Longer than the drain and the longest nap of its loop: were it counted, nothing would be left.
    tokio::time::sleep(Duration::from_secs(9)).await;
    let before = Instant::now();
    rig.signal(Signal::CONT);
    let woken = rig.until("a daemon", |_, _| true).await;
    assert_eq!(woken.phase, "drain", "the drain has not ended while nobody listened");
    rig.until("the retire", |_, status| status.phase != "drain").await;
    // Part of it was gathered between the status and the stop.
    not_before(before - Duration::from_millis(500), &status);
    rig.ends_well().await;
}
