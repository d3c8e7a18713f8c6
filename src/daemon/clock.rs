//! The only place that reads a clock.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::store::{Stamp, UnixMillis};

/// Where the time comes from: the machine, or a simulation of one.
pub trait Time: Send + Sync {
    /// Tells one boot of the machine from the next.
    fn boot_id(&self) -> &str;

    /// Milliseconds since the machine booted, suspend included. Never falls within one boot.
    fn boottime_ms(&self) -> u64;

    /// What a person would call the time. Anybody may set it.
    fn now(&self) -> DateTime<Utc>;
}

/// CLOCK_BOOTTIME for waits (it goes on in suspend and nobody can set it), the wall clock for people and schedules.
#[derive(Clone)]
pub struct Clock(Arc<dyn Time>);

impl Clock {
    pub fn new(time: impl Time + 'static) -> Clock {
        Clock(Arc::new(time))
    }

    /// # Errors
    /// None: where the kernel gives no boot id, a random one is used, so that no credit is carried over from before.
    pub fn system() -> Clock {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| format!("unknown-{:032x}", rand::random::<u128>()));
        Clock::new(Machine { boot_id })
    }

    /// Milliseconds since the machine booted, suspend included.
    pub fn boottime_ms(&self) -> u64 {
        self.0.boottime_ms()
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { boot_id: self.0.boot_id().to_owned(), boottime_ms: self.boottime_ms() }
    }

    /// Time since `stamp`, where it was taken in the same boot of the machine; zero otherwise.
    pub fn since(&self, stamp: &Stamp) -> Duration {
        if stamp.boot_id != self.0.boot_id() {
            return Duration::ZERO;
        }
        Duration::from_millis(self.boottime_ms().saturating_sub(stamp.boottime_ms))
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    pub fn unix_millis(&self) -> UnixMillis {
        self.now().timestamp_millis()
    }
}

/// The clocks of the machine that this process runs on.
struct Machine {
    boot_id: String,
}

impl Time for Machine {
    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn boottime_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
    }

    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
