//! The rules of the core that the model cannot see: waits, repetitions, what is counted, what is refused and why.

#[path = "rotation/case.rs"]
mod case;
#[path = "rotation/credit.rs"]
mod credit;
#[path = "rotation/evidence.rs"]
mod evidence;
#[path = "rotation/keystore.rs"]
mod keystore;
#[path = "rotation/log.rs"]
mod log;
#[path = "rotation/names.rs"]
mod names;
#[path = "rotation/operations.rs"]
mod operations;
#[path = "rotation/patch.rs"]
mod patch;
#[path = "rotation/restored.rs"]
mod restored;
