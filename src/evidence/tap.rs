use axum::{
    body::Bytes,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{
    Facts, Reason, Sighting, Verification,
    doors::{Doors, Peer, Refusal, authorized},
    ignore::origin,
    sighting::{event_of, presentable},
    verify,
};
use crate::{
    config::Door,
    secret::signature::{SignatureProblem, candidates},
};

/// A larger body is hashed, once for every key there ever was, where it keeps no other task from running.
const LONG_BODY: usize = 64 * 1024;

/// `POST /tap/{name}`: a copy of a delivery, byte for byte, with its signature header as received.
///
/// It shows what DialNexa signs with, not what the consumer made of it. 204 whatever the name and the signature: an answer
/// must not help anybody to find either.
pub(super) async fn tap(
    State(doors): State<Doors>,
    name: Result<Path<String>, PathRejection>,
    peer: Peer,
    request: axum::extract::Request,
) -> Response {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    if let Some(token) = doors.desk.tap_token(&name)
        && !authorized(request.headers(), &token)
    {
        return Refusal::Unauthorized.into_response();
    }
    let (head, body) = request.into_parts();
    match doors.reception.read(&head.headers, body, doors.reception.limits.max_body).await {
        Ok(body) => {
            if body.bytes.len() <= LONG_BODY {
                look(&doors, &name, peer, &head.headers, &body.bytes);
            } else {
                let look = move || look(&doors, &name, peer, &head.headers, &body.bytes);
                // The head carries the request's place: however soon the sender goes away, no more of these run at a time.
                let _ = tokio::task::spawn_blocking(look).await;
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Err(unread) => Refusal::Unread(unread).into_response(),
    }
}

fn look(doors: &Doors, name: &str, peer: Peer, headers: &HeaderMap, body: &Bytes) {
    let Some(keyring) = doors.desk.keyring(name) else { return };
    let mut facts = Facts {
        peer: origin(headers, peer.0),
        user_agent: headers.get(header::USER_AGENT).and_then(|agent| presentable(&String::from_utf8_lossy(agent.as_bytes()))),
        event: event_of(body),
        length: body.len(),
        ..Facts::default()
    };
    match verify(headers, body, &keyring) {
        Verification::Matched { .. } if doors.desk.ignores(name, headers, facts.peer) => {
            doors.desk.set_aside(name, Sha256::digest(body).into());
        }
        Verification::Matched { kid, header, prefixed, .. } => {
            facts.header = Some(header);
            facts.prefixed = prefixed;
            // A full inbox loses the sighting: there will be other deliveries, and a mirror does not repeat.
            let sighting = Sighting {
                webhook: name.to_owned(),
                door: Door::Tap,
                kid,
                body_sha256: Sha256::digest(body).into(),
                accepted: None,
                status: None,
                replica: None,
                facts,
            };
            // Where the proxy tells what the consumer answered, the two belong together.
            if let Some(sighting) = doors.answers.expect(headers, sighting) {
                doors.desk.sighted(sighting);
            }
        }
        Verification::NoMatch => {
            // How it was signed tells the two planes of DialNexa apart.
            if let Some(first) = candidates(headers).ok().and_then(|all| all.into_iter().next()) {
                (facts.header, facts.prefixed) = (Some(first.header), first.prefixed);
            }
            let encoded = headers.contains_key(header::CONTENT_ENCODING);
            let reason = if encoded { Reason::ContentEncoding } else { Reason::Mismatch };
            doors.desk.unverified(name, Door::Tap, reason, &facts);
        }
        Verification::Problem(problem) => doors.desk.unverified(name, Door::Tap, problem.into(), &facts),
    }
}

impl From<SignatureProblem> for Reason {
    fn from(problem: SignatureProblem) -> Reason {
        match problem {
            SignatureProblem::Missing => Reason::NoSignature,
            SignatureProblem::Malformed => Reason::Malformed,
            SignatureProblem::Repeated => Reason::Repeated,
        }
    }
}
