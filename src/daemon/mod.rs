//! The daemon: build, bind, run. One writer loop; everything else sends it messages and carries out its effects.

mod clock;
mod describe;
mod desk;
mod diagnosis;
mod drift;
mod gateways;
mod hands;
mod members;
mod message;
mod notify;
mod observe;
mod office;
mod opening;
mod parts;
mod request;
mod require;
mod rhythm;
mod running;
mod status;
mod stimulus;
mod traffic;
mod ward;
pub mod words;
mod writer;

pub use clock::{Clock, Time};
pub use diagnosis::{Finding, WORDS, told};
pub use parts::{Alarm, Parts, StartError, provider};
pub use request::{AdoptedSecret, Failure, Office, Reply, Request, Story};
pub use running::{Daemon, Options, home};
pub use status::{DeliveryCounts, OpenStatus, ReplicaStatus, Status};
