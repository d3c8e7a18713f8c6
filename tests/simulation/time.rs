//! A machine's clocks, driven by the paused time of the runtime.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use hookturn::daemon::Time;
use tokio::time::Instant;

/// The machine that a daemon runs on.
#[derive(Clone)]
pub struct Machine {
    began: Instant,
    clocks: Arc<Mutex<Clocks>>,
}

#[derive(Default)]
struct Clocks {
    boots: u64,
    /// When it was booted last, by its time.
    booted_at: u64,
    slept: u64,
    wall_is_off_by: i64,
}

impl Machine {
    pub fn new() -> Machine {
        Machine { began: Instant::now(), clocks: Arc::default() }
    }

    /// Milliseconds that the world has seen, suspends not included.
    pub fn ran(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets the machine sleep: nothing runs, and the boot clock goes on.
    pub fn suspend(&self, ms: u64) {
        self.clocks().slept += ms;
    }

    pub fn set_wall(&self, by: i64) {
        self.clocks().wall_is_off_by = by;
    }

    pub fn boot(&self) {
        let now = self.ran() + self.clocks().slept;
        let mut clocks = self.clocks();
        clocks.boots += 1;
        clocks.booted_at = now;
    }

    /// The clocks as a process sees them that begins now.
    pub fn process(&self) -> impl Time + use<> {
        let clocks = self.clocks();
        Process { boot_id: format!("boot-{}", clocks.boots), booted_at: clocks.booted_at, machine: self.clone() }
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Process {
    boot_id: String,
    booted_at: u64,
    machine: Machine,
}

impl Time for Process {
    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn boottime_ms(&self) -> u64 {
        // Not zero: a machine is never younger than its first process.
        1_000 + self.machine.ran() + self.machine.clocks().slept - self.booted_at
    }

    fn now(&self) -> DateTime<Utc> {
        let clocks = self.machine.clocks();
        let ran = i64::try_from(self.machine.ran() + clocks.slept).unwrap_or(0);
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(NEW_YEAR_2026 + ran + clocks.wall_is_off_by)
    }
}

const NEW_YEAR_2026: i64 = 1_767_225_600_000;

pub async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
