//! The one rule about which writes are admitted, shared by every back-end that decides itself.

use super::{Contents, KeystoreError};

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Write,
    /// The keystore holds these very keys as this very generation: a repetition.
    AlreadyThere,
}

/// Compares what is there with what the writer expected. The generation never falls: a replica ignores a lower one.
pub(super) fn admit(
    place: &str,
    found: Option<&Contents>,
    expect: Option<u64>,
    next: &Contents,
) -> Result<Admission, KeystoreError> {
    if found.is_some_and(|found| found.generation == next.generation && same_keys(found, next)) {
        return Ok(Admission::AlreadyThere);
    }
    let generation = found.map(|found| found.generation);
    if generation != expect {
        return Err(conflict(place, expect, generation));
    }
    if generation.is_some_and(|found| next.generation < found) {
        return Err(conflict(place, Some(next.generation), generation));
    }
    Ok(Admission::Write)
}

/// Refuses what no keystore can hold, before anything is touched.
pub(super) fn fits(place: &str, slots: Option<u8>, next: &Contents) -> Result<(), KeystoreError> {
    let refuse = |reason: String| Err(KeystoreError::DoesNotFit { place: place.to_owned(), reason });
    if next.generation == 0 {
        return refuse("generation 0 means that nothing is there; the first one is 1".to_owned());
    }
    if next.keys.is_empty() {
        return refuse("no key at all: the consumer would refuse every delivery".to_owned());
    }
    if let Some(slots) = slots
        && next.keys.len() > usize::from(slots)
    {
        return refuse(format!("{} keys where {slots} fit", next.keys.len()));
    }
    for (at, key) in next.keys.iter().enumerate() {
        if key.secret.is_none() {
            return refuse(format!("key {} has no secret", key.kid));
        }
        if next.keys[..at].iter().any(|other| other.kid == key.kid) {
            return refuse(format!("key {} is listed twice", key.kid));
        }
    }
    Ok(())
}

pub(super) fn conflict(place: &str, expect: Option<u64>, found: Option<u64>) -> KeystoreError {
    let say = |generation: Option<u64>| generation.map_or_else(|| "none".to_owned(), |number| number.to_string());
    KeystoreError::Conflict { place: place.to_owned(), expected: say(expect), found: say(found) }
}

/// The same kids with the same values, in whatever order and state: states are bookkeeping, every listed key is accepted.
fn same_keys(found: &Contents, next: &Contents) -> bool {
    found.keys.len() == next.keys.len()
        && next.keys.iter().all(|key| {
            found.keys.iter().any(|other| {
                other.kid == key.kid && matches!((&other.secret, &key.secret), (Some(there), Some(ours)) if there.same_as(ours))
            })
        })
}
