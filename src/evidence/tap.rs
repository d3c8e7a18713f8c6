//! `POST /tap/{name}`: a copy of a delivery, body and signature header as DialNexa sent them.
//!
//! The answer is 204 for every name, with and without a valid signature or token: a mirror throws it away, and anybody
//! else learns nothing from it. The signature is looked at after that, so a slow check holds no mirror up.

use std::sync::Arc;

use axum::{
    extract::{Extension, Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};

use super::{
    Facts, Reason, Sighting,
    doors::{House, Peer, bears, busy},
    verify::{Verification, body_sha256, verify},
};
use crate::config::Door;

/// From here on the check is long enough (some 100 µs a key) to be done on a thread that may block.
const LONG_BODY: usize = 64 << 10;

pub(super) async fn take(
    State(house): State<Arc<House>>,
    Path(name): Path<String>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let Some(place) = house.enter() else { return busy() };
    let (parts, body) = request.into_parts();
    let facts = Facts::of_request(Some(peer), &parts.headers);
    let held = match house.read(body, house.settings.max_body).await {
        Ok(held) => held,
        Err(problem) => {
            if let Some(reason) = problem.reason() {
                house.unverified(&name, Door::Tap, reason, facts);
            }
            return problem.into_response();
        }
    };
    let (bytes, granted) = held.into_parts();
    let facts = Facts { length: bytes.len(), ..facts };
    let shared = Arc::clone(&house);
    house.afterwards(bytes.len() > LONG_BODY, move || {
        look(&shared, &name, &parts.headers, &bytes, facts);
        drop((granted, place));
    });
    StatusCode::NO_CONTENT.into_response()
}

fn look(house: &House, name: &str, headers: &HeaderMap, body: &[u8], facts: Facts) {
    let desk = &house.desk;
    let Some(keyring) = desk.keyring(name) else { return };
    if desk.tap_token(name).is_some_and(|token| !bears(headers, &token)) {
        return desk.unverified(name, Door::Tap, Reason::BadToken, facts);
    }
    let verification = verify(headers, body, &keyring);
    if let Some(reason) = verification.reason(headers) {
        return desk.unverified(name, Door::Tap, reason, facts);
    }
    let Verification::Matched(found) = verification else { return };
    // Whether it was taken over is the desk's to count; the mirror can do nothing about it.
    let _ = desk.sighted(Sighting {
        webhook: name.to_owned(),
        door: Door::Tap,
        kid: found.kid,
        standing: Some(found.standing),
        body_sha256: body_sha256(body),
        accepted: None,
        status: None,
        replica: None,
        facts: facts.matched(&found, body),
    });
}
