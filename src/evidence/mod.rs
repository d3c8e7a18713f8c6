//! How a delivery becomes evidence, and how a replica is asked.
//!
//! - [`verify`](verify()): which key signed a body. Pure.
//! - [`Reception`]: places, time-outs and bodies of every listener that strangers can reach.
//! - [`serve`]: the doors `POST /tap/{name}`, `POST /report/{name}` and `POST /gateway/{name}`. The tap gets a copy, the report
//!   is the consumer's own word, and what the gateway passed on comes as a [`Dispatch`].
//! - [`ProxyAnswers`]: what the consumer answered to the deliveries that the tap got a copy of, from the proxy's log.
//! - [`Counters`]: the consumer's own counts, from its status files. Pure.
//! - [`Prober`]: a body that hookturn signed itself, posted to one replica, and what the answers mean.
//! - [`Ledger`]: which bodies were seen before, and which were hookturn's own.
//! - [`survey`]: what was seen of a throw-away webhook, and what follows from it. Pure.
//!
//! Whatever the door, one thing comes out: a [`Sighting`].

mod answers;
mod counters;
mod dispatch;
mod doors;
mod ignore;
mod judge;
mod ledger;
mod probe;
mod read_back;
mod reception;
mod report;
mod sighting;
pub mod survey;
mod tap;
mod verify;

pub use answers::{ProxyAnswers, bind_answers};
pub use counters::{Counters, Rise, StatusCounts};
pub use dispatch::{Dispatch, GatewayCounts, PROOF, Passed, prove};
pub use doors::{Desk, serve};
pub use ignore::{ignored, origin};
pub use judge::{Answers, Learned, judge};
pub use ledger::Ledger;
pub use probe::{Courier, PlannedRequest, ProbeKeys, ProbeResult, Prober, ProberError, Role, plan_bodies};
pub use read_back::judge_loaded;
pub use reception::{Attendant, Hand, Held, Limits, Place, Reception, Unread};
pub use sighting::{Facts, Reason, Sighting, event_of, presentable};
pub use verify::{Verification, verify, verify_ahead};
