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

use world::{LONG, World, ends, said};
