//! `POST /report/{name}`: a consumer tells which key a delivery verified under, and what it answered.
//!
//! ```json
//! {"kid":"k_5be2a7c90d1f4e83","body_sha256":"<64 hex digits>","status":200,"replica":"web-1"}
//! ```
//! 202, and 202 again for the same report again: whether it is new is decided later. Unknown fields are ignored.

use std::sync::Arc;

use axum::{
    extract::{Extension, Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde_json::{Map, Value};

use super::{
    Facts, Reason, Sighting,
    doors::{House, Peer, bears, busy},
    sighting::printable,
};
use crate::{config::Door, secret::Kid};

/// The cap on a report, in bytes.
const MAX_REPORT: usize = 16 << 10;
/// The longest name of a replica, in bytes (a DNS name's limit).
const MAX_REPLICA: usize = 253;

pub(super) async fn take(
    State(house): State<Arc<House>>,
    Path(name): Path<String>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let Some(_place) = house.enter() else { return busy() };
    let Some(keyring) = house.desk.keyring(&name) else {
        return (StatusCode::NOT_FOUND, "there is no webhook of this name\n").into_response();
    };
    let facts = Facts::of_request(Some(peer), request.headers());
    if house.desk.report_token(&name).is_some_and(|token| !bears(request.headers(), &token)) {
        house.desk.unverified(&name, Door::Report, Reason::BadToken, facts);
        return unauthorized();
    }
    let held = match house.read(request.into_body(), MAX_REPORT.min(house.settings.max_body)).await {
        Ok(held) => held,
        Err(problem) => {
            if let Some(reason) = problem.reason() {
                house.desk.unverified(&name, Door::Report, reason, facts);
            }
            return problem.into_response();
        }
    };
    let facts = Facts { length: held.bytes.len(), ..facts };
    let report = match Report::parse(&held.bytes) {
        Ok(report) => report,
        Err(problem) => {
            house.desk.unverified(&name, Door::Report, Reason::BadReport, facts);
            return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response();
        }
    };
    let Some(standing) = keyring.iter().find(|(kid, _, _)| *kid == report.kid).map(|(_, _, standing)| standing) else {
        house.desk.unverified(&name, Door::Report, Reason::UnknownKid, facts);
        return StatusCode::ACCEPTED.into_response();
    };
    let sighting = Sighting {
        webhook: name,
        door: Door::Report,
        kid: report.kid,
        standing: Some(standing),
        body_sha256: report.body_sha256,
        accepted: report.status.and_then(accepted),
        status: report.status,
        replica: report.replica,
        facts,
    };
    // Unlike a mirror, a consumer can send it again.
    if house.desk.sighted(sighting) { StatusCode::ACCEPTED.into_response() } else { busy() }
}

fn unauthorized() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, "this door asks for its bearer token\n").into_response()
}

/// 2xx: the consumer took the delivery. 401, 403: it refused the signature. Anything else failed behind that.
fn accepted(status: u16) -> Option<bool> {
    match status {
        200..=299 => Some(true),
        401 | 403 => Some(false),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Report {
    kid: Kid,
    body_sha256: [u8; 32],
    status: Option<u16>,
    replica: Option<String>,
}

/// What is wrong with a report. Names the field and never repeats what was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum BadReport {
    #[error("the body must be a JSON object with the fields `kid` and `body_sha256`, and better `status` and `replica` too")]
    NotAnObject,
    #[error("`kid` must be the key id from the keystore: 1 to {} letters, digits, '.', '_' or '-'", Kid::MAX_BYTES)]
    Kid,
    #[error("`body_sha256` must be the SHA-256 of the delivery's raw body, as 64 hex digits")]
    BodySha256,
    #[error("`status` must be the HTTP status that the consumer answered, a number from 100 to 599, or left out")]
    Status,
    #[error("`replica` must be a name of 1 to {MAX_REPLICA} printable characters, or left out")]
    Replica,
}

impl Report {
    fn parse(body: &[u8]) -> Result<Report, BadReport> {
        let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| BadReport::NotAnObject)?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let mut body_sha256 = [0u8; 32];
        hex::decode_to_slice(text("body_sha256").unwrap_or_default(), &mut body_sha256).map_err(|_| BadReport::BodySha256)?;
        Ok(Report {
            kid: Kid::parse(text("kid").unwrap_or_default()).map_err(|_| BadReport::Kid)?,
            body_sha256,
            status: given(&fields, "status").map(status).transpose()?,
            replica: given(&fields, "replica").map(replica).transpose()?,
        })
    }
}

fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn status(value: &Value) -> Result<u16, BadReport> {
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    number.filter(|status| (100..600).contains(status)).ok_or(BadReport::Status)
}

fn replica(value: &Value) -> Result<String, BadReport> {
    let name = value.as_str().filter(|name| !name.is_empty() && name.len() <= MAX_REPLICA);
    name.filter(|name| printable(name, MAX_REPLICA) == **name).map(str::to_owned).ok_or(BadReport::Replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(body: Value) -> Result<Report, BadReport> {
        Report::parse(body.to_string().as_bytes())
    }

    #[test]
    fn a_report_needs_a_kid_and_a_digest_and_may_say_more() {
        let full = parse(serde_json::json!({"kid": "k_1", "body_sha256": DIGEST, "status": 200, "replica": "web-1", "new": 1}));
        let full = full.expect("a report");
        assert_eq!((full.kid.as_str(), full.status, full.replica.as_deref()), ("k_1", Some(200), Some("web-1")));
        assert_eq!(hex::encode(full.body_sha256), DIGEST);
        let least = parse(serde_json::json!({"kid": "k_1", "body_sha256": DIGEST.to_uppercase(), "status": null}));
        assert_eq!(least.expect("a report").status, None);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let base = serde_json::json!({"kid": "k_1", "body_sha256": DIGEST, "status": 200, "replica": "web-1"});
        for (field, value, problem) in [
            ("kid", serde_json::json!(7), BadReport::Kid),
            ("kid", serde_json::json!("a b"), BadReport::Kid),
            ("body_sha256", serde_json::json!("abc"), BadReport::BodySha256),
            ("body_sha256", serde_json::json!(null), BadReport::BodySha256),
            ("status", serde_json::json!("200"), BadReport::Status),
            ("status", serde_json::json!(99), BadReport::Status),
            ("status", serde_json::json!(200.5), BadReport::Status),
            ("status", serde_json::json!(65736), BadReport::Status),
            ("replica", serde_json::json!(""), BadReport::Replica),
            ("replica", serde_json::json!("a\nb"), BadReport::Replica),
            ("replica", serde_json::json!("x".repeat(254)), BadReport::Replica),
        ] {
            let mut body = base.clone();
            body[field] = value;
            assert_eq!(parse(body), Err(problem), "{field}");
            assert!(problem.to_string().contains(&format!("`{field}`")));
        }
        for nonsense in [&b""[..], b"[]", b"null", b"{", b"\xff", "[".repeat(10_000).as_bytes()] {
            assert_eq!(Report::parse(nonsense), Err(BadReport::NotAnObject));
        }
    }

    #[test]
    fn only_a_2xx_is_an_acceptance_and_only_401_and_403_a_refusal() {
        assert_eq!([200, 204, 299].map(accepted), [Some(true); 3]);
        assert_eq!([401, 403].map(accepted), [Some(false); 2]);
        assert_eq!([100, 302, 400, 404, 429, 500, 503].map(accepted), [None; 7]);
    }
}
