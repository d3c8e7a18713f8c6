//! Bad input and broken surroundings, against the real program: each is told with its place and the way out, ends with its exit
//! code or in a hold, and loses nothing.

#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/doors.rs"]
mod doors;
#[path = "faults/keystore.rs"]
mod keystore;
#[path = "faults/provider.rs"]
mod provider;
#[path = "faults/start.rs"]
mod start;
mod world;

use std::{process::Output, time::Duration};

use world::{World, said};

/// Long enough for a loaded machine; every wait ends as soon as what it waits for is there.
const LONG: Duration = Duration::from_secs(60);

/// A command that is to fail: with this code, and saying all of these.
fn fails(output: &Output, exit: i32, phrases: &[&str]) {
    let told = said(output);
    assert_eq!(output.status.code(), Some(exit), "{told}");
    for phrase in phrases {
        assert!(told.contains(phrase), "{phrase:?} is not in:\n{told}");
    }
}

fn tells(status: &serde_json::Value, phrases: &[&str]) {
    let text = status.to_string();
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase:?} is not in {status:#}");
    }
}

/// A world with a daemon that knows the secret, and has seen it verify.
async fn running(world: &World) -> tokio::process::Child {
    world.adopt().await;
    let daemon = world.daemon();
    world.ready().await;
    world.until("confirmed", LONG, |status| status["confirmed"] == true).await;
    daemon
}

/// The rotation under way ends, and nothing was lost on the way.
async fn ends_well(world: &World) {
    let done = world.run(&["rotate-now", "billing", "--until", "retired", "--timeout", "90s"]).await;
    assert_eq!(done.status.code(), Some(0), "{}\nlog:\n{}", said(&done), world.log());
    world.nothing_lost().await;
}
