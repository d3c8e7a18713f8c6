//! How a delivery becomes evidence, and how a consumer is asked what it accepts.
//!
//! Two things have to be shown before an old secret may go: that DialNexa signs with the new one, and that every replica
//! accepts it. Deliveries show the first, whichever way they become known:
//!
//! - [`doors`]: the HTTP server that [`report`]s and tapped copies ([`tap`]) come in through;
//! - [`counters`]: the status files of the replicas, read as rises of their counters;
//! - [`verify`]: the signature check that a tapped copy goes through. Pure.
//!
//! The second is asked for by the [`probe`], which signs bodies itself. What hookturn signed is never evidence: the
//! [`ledger`] recognises its bodies, and [`counters`] subtracts them.
//!
//! Everything that was seen is a [`Sighting`]. Nothing here decides anything, and no body, secret or signature is kept.

mod body;
pub mod counters;
pub mod doors;
mod judge;
pub mod ledger;
pub mod probe;
mod report;
mod sighting;
mod tap;
pub mod verify;

pub use counters::{Counters, Rise, StatusCounts};
pub use doors::{Desk, DoorSettings, bind, serve};
pub use judge::{Answer, Learned, Role};
pub use ledger::Ledger;
pub use probe::{PlannedRequest, ProbeKeys, ProbeResult, Prober, plan_bodies};
pub use sighting::{Facts, Reason, Sighting};
pub use verify::{Match, Verification, body_sha256, verify};
