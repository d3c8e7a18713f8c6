//! Every switch and every fault of the sandbox, provoked over real HTTP and seen from outside.

#[path = "sandbox/consumer.rs"]
mod consumer;
#[path = "sandbox/deliveries.rs"]
mod deliveries;
#[path = "sandbox/faults.rs"]
mod faults;
#[path = "sandbox/rest.rs"]
mod rest;
#[path = "sandbox/stage.rs"]
mod stage;
#[path = "sandbox/whole.rs"]
mod whole;
