//! How a delivery becomes evidence, and how a replica is asked.
//!
//! - [`verify`](verify()): which key signed a body. Pure.
//! - [`serve`]: the doors `POST /tap/{name}` and `POST /report/{name}`. Nothing of ours stands in the delivery path: the tap
//!   gets a copy, the report is the consumer's own word.
//! - [`Counters`]: the consumer's own counts, from its status files. Pure.
//! - [`Prober`]: a body that hookturn signed itself, posted to one replica, and what the answers mean.
//! - [`Ledger`]: which bodies were seen before, and which were hookturn's own.
//!
//! Whatever the door, one thing comes out: a [`Sighting`].

mod counters;
mod doors;
mod judge;
mod ledger;
mod probe;
mod report;
mod sighting;
mod tap;
mod verify;

pub use counters::{Counters, Rise, StatusCounts};
pub use doors::{Desk, DoorSettings, serve};
pub use judge::{Answers, Learned, judge};
pub use ledger::Ledger;
pub use probe::{Courier, PlannedRequest, ProbeKeys, ProbeResult, Prober, ProberError, Role, plan_bodies};
pub use sighting::{Facts, Reason, Sighting};
pub use verify::{Verification, verify};
