use std::net::IpAddr;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

use super::{
    Facts, Reason, Sighting, Unread,
    doors::{Doors, Peer, Refusal, authorized},
    sighting::presentable,
};
use crate::{config::Door, secret::Kid};

/// A report is a few short fields.
const MAX_BODY: usize = 16 * 1024;
const MAX_REPLICA: usize = 128;

/// `POST /report/{name}`: a consumer's own word that a delivery verified under a key, and what it answered.
///
/// 202, the same again too; 400 names the field that is wrong; 503 where it could not be taken, to be sent again.
pub(super) async fn report(
    State(doors): State<Doors>,
    name: Result<Path<String>, PathRejection>,
    peer: Peer,
    request: axum::extract::Request,
) -> Response {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    match take(&doors, name, peer, request).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(doors: &Doors, name: String, peer: Peer, request: axum::extract::Request) -> Result<(), Refusal> {
    let keyring = doors.desk.keyring(&name).ok_or(Refusal::UnknownWebhook)?;
    if doors.desk.report_token(&name).is_some_and(|token| !authorized(request.headers(), &token)) {
        return Err(Refusal::Unauthorized);
    }
    let (head, body) = request.into_parts();
    let body = doors.reception.read(&head.headers, body, MAX_BODY.min(doors.reception.limits.max_body)).await?;
    let said = parse(&body.bytes).map_err(Refusal::Field)?;
    if !keyring.contains(said.kid) {
        doors.desk.unverified(&name, Door::Report, Reason::UnknownKid, &reporter(&head.headers, peer));
        return Ok(());
    }
    let sighting = Sighting {
        webhook: name,
        door: Door::Report,
        kid: said.kid,
        body_sha256: said.body_sha256,
        accepted: accepted(said.status),
        status: Some(said.status),
        replica: said.replica,
        facts: said.facts,
    };
    if doors.desk.sighted(sighting) { Ok(()) } else { Err(Unread::Busy.into()) }
}

/// Who reports, which is not who delivered.
fn reporter(headers: &HeaderMap, peer: Peer) -> Facts {
    let agent = headers.get(header::USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    Facts { peer: peer.0, user_agent: agent.and_then(|agent| presentable(&agent)), ..Facts::default() }
}

/// 2xx is acceptance, 401 and 403 are refusals of the signature; a 500 says nothing about keys.
pub(super) fn accepted(status: u16) -> Option<bool> {
    match status {
        200..=299 => Some(true),
        401 | 403 => Some(false),
        _ => None,
    }
}

/// What a consumer reports.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    kid: Kid,
    body_sha256: [u8; 32],
    status: u16,
    replica: Option<String>,
    /// Of the delivery, as far as the consumer says.
    facts: Facts,
}

/// Which field is wrong, and what it should be. Fields of later versions are passed over.
fn parse(body: &[u8]) -> Result<Said, &'static str> {
    let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| "the body is not a JSON object")?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let kid = text("kid").and_then(|kid| Kid::parse(kid).ok()).ok_or("kid: a key id as it stands in the keystore")?;
    let mut body_sha256 = [0u8; 32];
    text("body_sha256")
        .and_then(|digits| hex::decode_to_slice(digits, &mut body_sha256).ok())
        .ok_or("body_sha256: the SHA-256 of the raw body, 64 hex digits")?;
    let status = fields.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| (100..=599).contains(status)).ok_or("status: the HTTP status answered, a number")?;
    let replica = match fields.get("replica") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if is_replica_name(name) => Some(name.clone()),
        Some(_) => return Err("replica: a name of 1 to 128 characters, no control characters"),
    };
    let facts = Facts {
        peer: optional(&fields, "address", |address| address.trim().parse::<IpAddr>().ok())
            .ok_or("address: the IP address that the delivery came from")?,
        user_agent: optional(&fields, "user_agent", |agent| Some(presentable(agent)))
            .ok_or("user_agent: a text, that of the delivery")?
            .flatten(),
        event: optional(&fields, "event", |event| Some(presentable(event)))
            .ok_or("event: a text, that of the delivery")?
            .flatten(),
        ..Facts::default()
    };
    Ok(Said { kid, body_sha256, status, replica, facts })
}

/// A text that need not be there. `None`: it is there, and wrong.
fn optional<T>(fields: &Map<String, Value>, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_str().and_then(read).map(Some),
    }
}

pub(super) fn is_replica_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= MAX_REPLICA && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(change: impl Fn(&mut Value)) -> Result<Said, &'static str> {
        let mut report = serde_json::json!({"kid": "k_1", "body_sha256": "ab".repeat(32), "status": 200, "later": [1]});
        change(&mut report);
        parse(report.to_string().as_bytes())
    }

    #[test]
    fn a_report_is_read_and_the_replica_may_be_missing() {
        let (kid, facts) = (Kid::parse("k_1").expect("kid"), Facts::default());
        let plain = Said { kid, body_sha256: [0xab; 32], status: 200, replica: None, facts };
        assert_eq!(said(|_| ()), Ok(plain));
        assert_eq!(said(|r| r["replica"] = Value::Null).map(|s| s.replica), Ok(None));
        assert_eq!(said(|r| r["replica"] = "web-1".into()).map(|s| s.replica), Ok(Some("web-1".to_owned())));
    }

    #[test]
    fn what_the_consumer_says_of_the_delivery_is_told_to_people() {
        let said = said(|report| {
            report["address"] = "203.0.113.9".into();
            report["user_agent"] = "DialNexa/1\n".into();
            report["event"] = "call.completed".into();
        });
        let facts = said.expect("a report").facts;
        assert_eq!(facts.peer.map(|peer| peer.to_string()).as_deref(), Some("203.0.113.9"));
        assert_eq!((facts.user_agent.as_deref(), facts.event.as_deref()), (Some("DialNexa/1"), Some("call.completed")));
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (field, bad) in [
            ("kid", Value::from("")),
            ("kid", Value::from(7)),
            ("kid", Value::Null),
            ("body_sha256", Value::from("ab")),
            ("body_sha256", Value::from("zz".repeat(32))),
            ("status", Value::from("200")),
            ("status", Value::from(99)),
            ("status", Value::from(70_000)),
            ("status", Value::from(200.5)),
            ("address", Value::from("here")),
            ("user_agent", Value::from(1)),
            ("event", Value::from(vec![1])),
            ("replica", Value::from("")),
            ("replica", Value::from(1)),
            ("replica", Value::from("a\nb")),
            ("replica", Value::from("x".repeat(129))),
        ] {
            let message = said(|r| r[field] = bad.clone()).expect_err("refused");
            assert!(message.starts_with(field), "{field} = {bad}: {message}");
        }
        for bad in ["", "[]", "{", "null"] {
            assert_eq!(parse(bad.as_bytes()), Err("the body is not a JSON object"));
        }
    }

    #[test]
    fn only_a_success_is_acceptance_and_only_a_refusal_is_one() {
        let cases = [(200, Some(true)), (204, Some(true)), (401, Some(false)), (403, Some(false)), (400, None), (500, None)];
        for (status, meaning) in cases {
            assert_eq!(accepted(status), meaning, "{status}");
        }
    }
}
