//! The daemon: build, bind, run. One writer loop; everything else sends it messages and carries out its effects.

mod clock;
mod request;
mod status;

pub use clock::Clock;
pub use request::{AdoptedSecret, Failure, Office, Reply, Request, Story};
pub use status::{DeliveryCounts, OpenStatus, ReplicaStatus, Status};
