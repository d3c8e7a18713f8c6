//! The commands as a person uses them, against the sandbox: what each says, does, and ends with.

#[path = "commands/adopt.rs"]
mod adopt;
#[path = "commands/consumers.rs"]
mod consumers;
#[path = "commands/init.rs"]
mod init;
#[path = "commands/look.rs"]
mod look;
#[path = "commands/rotate.rs"]
mod rotate;
mod world;

use std::{process::Output, time::Duration};

use world::{World, said};

/// Long enough for a loaded machine; every wait ends as soon as what it waits for is there.
const LONG: Duration = Duration::from_secs(60);

/// How a command ended, and some of what it said.
fn ends(output: &Output, exit: i32, phrases: &[&str]) {
    let told = said(output);
    assert_eq!(output.status.code(), Some(exit), "{told}");
    for phrase in phrases {
        assert!(told.contains(phrase), "{phrase:?} is not in:\n{told}");
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

/// A rotation from here to its end, with nothing lost.
async fn rotates(world: &World, more: &[&str]) {
    let done = world.run(&[&["rotate-now", "billing", "--until", "retired", "--timeout", "90s"], more].concat()).await;
    assert_eq!(done.status.code(), Some(0), "{}\nlog:\n{}", said(&done), world.log());
    world.nothing_lost().await;
}
