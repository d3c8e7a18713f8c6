//! hookturn rotates the signing secret of DialNexa webhooks without losing a delivery.
//!
//! The modules, in reading order:
//!
//! 0. [`boundary`]: where a crash drill makes the program die; [`mutants`]: rules that tests break. Nothing else depends on them.
//! 1. [`secret`]: the value that cannot be printed, its key id, sealing, and which keys are accepted now.
//! 2. [`rotation`]: **the pure core.** `step(record, volatile, event)` decides everything and does nothing.
//! 3. [`config`]: what the file may say, and what it means.
//! 4. [`dialnexa`], [`keystore`], [`evidence`], [`store`], [`schedule`]: the five siblings around the core. They do not know each other.
//! 5. [`steps`]: generate, push, patch, verify, retire: an effect in, an event out, safe to repeat.
//! 6. [`gateway`]: a process of its own in front of a consumer, which knows the daemon by a file and an address only.
//! 7. [`daemon`]: the one writer loop that ties them together.
//! 8. [`admin`], [`cli`]: how a person or a monitor talks to it.
//! 9. [`sandbox`]: a DialNexa look-alike and a sample consumer, for the demo and the tests.
//!
//! Imports point one way, down this list to the top of it; `tests/layering.rs` holds that.

#![forbid(unsafe_code)]

pub mod boundary;
pub mod mutants;
pub mod secret;

pub mod rotation;

pub mod config;

pub mod dialnexa;
pub mod evidence;
pub mod keystore;
pub mod schedule;
pub mod store;

pub mod gateway;
pub mod steps;

pub mod daemon;

pub mod admin;
pub mod cli;
pub mod sandbox;
