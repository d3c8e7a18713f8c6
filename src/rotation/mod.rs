//! The pure core: what a rotation is, and every decision it takes.
//!
//! `step(record, volatile, event) -> (record, volatile, effects)`: no clock, no network, no randomness, no async, and no
//! secret bytes; a secret is its [`crate::secret::Kid`] here.

mod effect;
mod event;
mod phase;
mod record;

pub use effect::{Effect, Note};
pub use event::{Event, Found, Inspection, Op, PatchAnswer, ReplicaId, Seen, Verdict};
pub use phase::{Cause, Draining, Freshness, Hold, Patching, Phase, Rotation, Shrinking};
pub use record::{Current, KidSet, Millis, OnReject, Open, Policy, Reaccepted, Record, Retired};
