//! `POST /gateway/{name}`: what the gateway passed on, and what the consumer answered to it.
//!
//! The gateway holds what the consumer's keystore holds, and nothing else. So it proves who it is with that: each dispatch
//! carries a MAC under one of the accepted keys. What is signed begins with words that no JSON parser takes, so a dispatch
//! can never be turned into a delivery.

use std::net::IpAddr;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use hmac::Mac;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{
    Facts, Reason, Sighting, Unread,
    doors::{Doors, Refusal},
    presentable,
    report::{accepted, is_replica_name},
};
use crate::{
    config::Door,
    secret::{Keyring, Kid, Secret, Standing, signature},
};

/// The header with the kid and the MAC of a dispatch: `k_5be2a7c90d1f4e83 <64 hex digits>`.
pub const PROOF: &str = "x-hookturn-proof";
const DOMAIN: &[u8] = b"hookturn/gateway/1\n";
/// The cap on one dispatch.
const MAX_BODY: usize = 512 * 1024;

/// The body of a dispatch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Dispatch {
    #[serde(flatten)]
    pub counts: GatewayCounts,
    pub passed: Vec<Passed>,
}

/// What one gateway process has counted since it began. Totals, so that a dispatch that comes twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayCounts {
    pub replica: String,
    /// When the process began, RFC 3339: totals begin at zero with it.
    pub started_at: String,
    /// Deliveries that got an answer of the gateway's own (413, 502, 503, 504) in place of the consumer's.
    pub lost: u64,
    /// Requests that no accepted key had signed.
    pub unverified: u64,
}

/// A delivery that verified and was passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub kid: Kid,
    /// SHA-256 of the raw body, in hex.
    pub body_sha256: String,
    /// What the consumer answered.
    pub status: u16,
    pub header: String,
    pub prefixed: bool,
    pub event: Option<String>,
    pub user_agent: Option<String>,
    pub peer: Option<IpAddr>,
    pub length: usize,
}

/// The value of [`PROOF`] for a dispatch.
pub fn prove(kid: Kid, secret: &Secret, body: &[u8]) -> String {
    format!("{kid} {}", hex::encode(mac(secret, body)))
}

fn mac(secret: &Secret, body: &[u8]) -> [u8; 32] {
    let mut mac = signature::keyed(secret);
    mac.update(DOMAIN);
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// 202, the same again too; 401 without a proof under an accepted key; 503 where not all of it could be taken.
pub(super) async fn gateway(
    State(doors): State<Doors>,
    name: Result<Path<String>, PathRejection>,
    request: axum::extract::Request,
) -> Response {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    match take(&doors, &name, request).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(doors: &Doors, name: &str, request: axum::extract::Request) -> Result<(), Refusal> {
    let keyring = doors.desk.keyring(name).ok_or(Refusal::UnknownWebhook)?;
    let (head, body) = request.into_parts();
    let body = doors.reception.read(&head.headers, body, MAX_BODY).await?;
    if !proven(&head.headers, &body.bytes, &keyring) {
        return Err(Refusal::Unproven);
    }
    let dispatch: Dispatch = serde_json::from_slice(&body.bytes).map_err(|_| Refusal::Field("this is not a dispatch"))?;
    if !is_replica_name(&dispatch.counts.replica) || dispatch.counts.started_at.len() > 64 {
        return Err(Refusal::Field("replica or started_at: not as they should be"));
    }
    let replica = dispatch.counts.replica.clone();
    doors.desk.gateway_counts(name, dispatch.counts);
    for passed in dispatch.passed {
        let sighting = passed.sighting(name, &replica).ok_or(Refusal::Field("body_sha256 or header: not as they should be"))?;
        if !keyring.contains(sighting.kid) {
            doors.desk.unverified(name, Door::Gateway, Reason::UnknownKid, &sighting.facts);
        } else if !doors.desk.sighted(sighting) {
            return Err(Unread::Busy.into());
        }
    }
    Ok(())
}

fn proven(headers: &HeaderMap, body: &[u8], keyring: &Keyring) -> bool {
    let mut given = [0u8; 32];
    let proof = headers.get(PROOF).and_then(|proof| proof.to_str().ok()?.split_once(' '));
    let Some((kid, digits)) = proof else { return false };
    let key = keyring.iter().find(|(known, _, standing)| known.as_str() == kid && *standing == Standing::Accepted);
    let (Some((_, secret, _)), Ok(())) = (key, hex::decode_to_slice(digits, &mut given)) else { return false };
    mac(secret, body).ct_eq(&given).into()
}

impl Passed {
    fn sighting(self, webhook: &str, replica: &str) -> Option<Sighting> {
        let mut body_sha256 = [0u8; 32];
        hex::decode_to_slice(&self.body_sha256, &mut body_sha256).ok()?;
        let header = signature::HEADERS.into_iter().find(|header| *header == self.header)?;
        let facts = Facts {
            peer: self.peer,
            user_agent: self.user_agent.and_then(|agent| presentable(&agent)),
            event: self.event.and_then(|event| presentable(&event)),
            header: Some(header),
            prefixed: self.prefixed,
            length: self.length,
        };
        Some(Sighting {
            webhook: webhook.to_owned(),
            door: Door::Gateway,
            kid: self.kid,
            body_sha256,
            accepted: accepted(self.status),
            status: Some(self.status),
            replica: Some(replica.to_owned()),
            facts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, standing: Standing) -> (Kid, Secret, Standing) {
        (Kid::parse(kid).expect("kid"), Secret::parse(&format!("whsec_{kid}")).expect("secret"), standing)
    }

    #[test]
    fn a_proof_counts_under_an_accepted_key_and_for_its_own_body_only() {
        let ring = Keyring::new(vec![key("now", Standing::Accepted), key("gone", Standing::Retired)]);
        let proof = |kid: &str, body: &[u8]| {
            let (kid, secret, _) = key(kid, Standing::Accepted);
            HeaderMap::from_iter([(PROOF.parse().expect("name"), prove(kid, &secret, body).parse().expect("value"))])
        };
        assert!(proven(&proof("now", b"{}"), b"{}", &ring));
        assert!(!proven(&proof("now", b"{}"), b"{ }", &ring));
        assert!(!proven(&proof("gone", b"{}"), b"{}", &ring));
        assert!(!proven(&proof("stranger", b"{}"), b"{}", &ring));
        assert!(!proven(&HeaderMap::new(), b"{}", &ring));
        // The signature of a delivery is no proof, nor the other way round.
        let (kid, secret, _) = key("now", Standing::Accepted);
        let delivery = format!("{kid} {}", hex::encode(signature::mac(&secret, b"{}")));
        assert!(!proven(&HeaderMap::from_iter([(PROOF.parse().expect("name"), delivery.parse().expect("value"))]), b"{}", &ring));
    }
}
