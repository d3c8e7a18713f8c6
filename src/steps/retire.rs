//! Step 5: the consumer accepts the new secret only, and every replica has confirmed it.
//!
//! It is the push step with a smaller set: the write, the read-back and the questions are the same code in
//! [`super::push`]; what differs is decided by the core, which puts what must be gone into
//! [`Effect::AskReplicas`](crate::rotation::Effect::AskReplicas)`::refuse`. Nothing is deleted from the store: the retired secret stays sealed, so that a delivery
//! that still carries it can be named.

use crate::{
    keystore::KeyState,
    rotation::{Current, Phase, Record},
    secret::Kid,
};

/// How a key of the keystore is labelled. Bookkeeping for people: a consumer accepts every listed key.
pub fn label(record: &Record, kid: Kid) -> KeyState {
    match record.phase.underlying() {
        Phase::Retire(rotation, _) if rotation.target == kid => KeyState::Current,
        _ if record.current == Current::Known(kid) => KeyState::Current,
        phase if phase.rotation().is_some_and(|rotation| rotation.target == kid) => KeyState::Pending,
        _ => KeyState::Previous,
    }
}
