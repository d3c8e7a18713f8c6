//! When a webhook is due.
//!
//! `planner.rs` is pure: it is told the time and one random number, and the caller keeps what it answers. `wake.rs` is only an
//! alarm clock: it says "look again" every few seconds and knows nothing of schedules.

mod planner;
mod wake;

pub use planner::{Due, Plan, is_due, next_due};
pub use wake::{WakeError, WakeUp, wake};

pub use crate::config::{Cron, Window};
