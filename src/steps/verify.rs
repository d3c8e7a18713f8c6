//! Step 4: what came through a door becomes one kind of event.

use crate::{
    evidence::Sighting,
    rotation::Seen,
    store::{Evidence, UnixMillis},
};

use super::Tools;

/// The event that a sighting is, and the row that is kept of it if it decides anything. The body itself is never kept,
/// only a keyed hash of its digest.
pub fn weigh(tools: &Tools, sighting: &Sighting, at: UnixMillis) -> (Seen, Evidence) {
    let mut ledger = tools.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let body = ledger.digest(&sighting.body_sha256);
    let probe = ledger.is_probe(&body) || ledger.is_aside(&body);
    let new_body = ledger.note(sighting.kid, &body);
    let seen = Seen { kid: sighting.kid, new_body, probe, accepted: sighting.accepted };
    let evidence = Evidence {
        kid: sighting.kid,
        body,
        at,
        door: sighting.door.name().to_owned(),
        accepted: sighting.accepted,
        detail: sighting.detail(),
    };
    (seen, evidence)
}
