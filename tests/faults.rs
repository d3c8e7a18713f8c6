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

use world::{LONG, World, ends, said};

fn tells(status: &serde_json::Value, phrases: &[&str]) {
    let text = status.to_string();
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase:?} is not in {status:#}");
    }
}
