//! The gateway: what it passes on, what it refuses, what it does when something around it is slow, gone, or hostile.

#[path = "gateway/consumer.rs"]
mod consumer;
#[path = "gateway/passing.rs"]
mod passing;
#[path = "gateway/program.rs"]
mod program;
#[path = "gateway/stage.rs"]
mod stage;
#[path = "gateway/strangers.rs"]
mod strangers;
mod world;
