//! The pure core: what a rotation is, and every decision it takes.
//!
//! `step(record, volatile, event) -> (record, volatile, effects)`: no clock, no network, no randomness, no async, and no
//! secret bytes; a secret is its [`crate::secret::Kid`] here. The daemon, the simulator and the model checker run this same
//! function.
//!
//! Reading order: `record` (what survives a crash), `phase` (where a rotation is), `event` and `effect` (the whole contract
//! with the shell), `step` (the dispatch and the plan of each phase), then `keep` (keystore and replicas), `switch` (PATCH,
//! evidence, retire), `operate` (what people ask for), `time` (credit, restart), `log` (what was decided, to be worked out again).

mod effect;
mod event;
mod keep;
mod log;
#[cfg(not(feature = "mutants"))]
mod mutants;
#[cfg(feature = "mutants")]
pub mod mutants;
mod operate;
mod phase;
mod record;
mod step;
mod switch;
mod time;
mod volatile;

pub use effect::{Effect, Note};
pub use event::{Event, Found, Inspection, Op, PatchAnswer, ReplicaId, Seen, Verdict};
pub use log::{Difference, Entry, Recorder, Replay};
pub use phase::{Cause, Draining, Freshness, Hold, Patching, Phase, Rotation, Shrinking};
pub use record::{Current, KidSet, Millis, OnReject, Open, Policy, Reaccepted, Record, Retired};
pub use step::{LOOK_EVERY, Refused, Step, Why, step};
pub use time::wake_in;
pub use volatile::{Accrued, KeystoreView, Line, Overfull, Retry, Timers, Volatile, WebhookView};
