use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{config::Door, secret::Kid};

/// A delivery that verified under a key of a webhook, or that a consumer says verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub webhook: String,
    pub door: Door,
    pub kid: Kid,
    /// SHA-256 of the raw body. It is not kept: [`super::Ledger::digest`] makes of it what is.
    pub body_sha256: [u8; 32],
    /// What the consumer made of it, where the door knows: 2xx, or a refusal of the signature.
    pub accepted: Option<bool>,
    /// The status that the consumer answered.
    pub status: Option<u16>,
    /// The replica that says so, by the name it gives itself.
    pub replica: Option<String>,
    pub facts: Facts,
}

/// What else is known of a delivery: for people, never for a decision. Everything in it may be forged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub peer: Option<IpAddr>,
    /// At most 120 characters, no control characters.
    pub user_agent: Option<String>,
    /// `event` or `event_type` of the body, if it is a JSON object with such a text; cleaned as the user agent is.
    pub event: Option<String>,
    /// The header that the matching signature came in; where none matched, the first one.
    pub header: Option<&'static str>,
    /// That signature had `sha256=` in front.
    pub prefixed: bool,
    /// Bytes of the body.
    pub length: usize,
}

/// Why something that came through a door is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    #[error("no signature header")]
    NoSignature,
    #[error("the signature is not 32 bytes in hex")]
    Malformed,
    #[error("one signature header came more than once")]
    Repeated,
    #[error("the signature matches no key")]
    Mismatch,
    /// DialNexa signs what it sends; something in between that compresses or unpacks changes the bytes.
    #[error("the signature matches no key, and the body came with a content encoding: what was signed may be another form of it")]
    ContentEncoding,
    #[error("the report names a key that this webhook never had")]
    UnknownKid,
}

impl Reason {
    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NoSignature => "no_signature",
            Reason::Malformed => "malformed",
            Reason::Repeated => "repeated",
            Reason::Mismatch => "mismatch",
            Reason::ContentEncoding => "content_encoding",
            Reason::UnknownKid => "unknown_kid",
        }
    }
}

impl Sighting {
    /// What is kept beside a row of evidence. Neither the body nor its digest is in it.
    pub fn detail(&self) -> Value {
        let facts = &self.facts;
        let mut detail = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                detail.insert(name.to_owned(), value);
            }
        };
        put("status", self.status.map(Value::from));
        put("replica", self.replica.clone().map(Value::from));
        put("peer", facts.peer.map(|peer| peer.to_string().into()));
        put("user_agent", facts.user_agent.clone().map(Value::from));
        put("event", facts.event.clone().map(Value::from));
        put("header", facts.header.map(Value::from));
        put("prefixed", facts.header.map(|_| facts.prefixed.into()));
        put("length", facts.header.map(|_| facts.length.into()));
        Value::Object(detail)
    }
}

/// What a person may be shown of a text from outside: 120 characters, no control characters. `None`: nothing is left.
pub fn presentable(text: &str) -> Option<String> {
    const LONGEST: usize = 120;
    let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    (!text.is_empty()).then_some(text)
}

/// A shallow look at the kind of event. Nothing depends on it.
pub fn event_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Shallow {
        event: Option<String>,
        event_type: Option<String>,
    }
    let shallow: Shallow = serde_json::from_slice(body).ok()?;
    presentable(&shallow.event.or(shallow.event_type)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_names_what_is_known_and_never_the_body() {
        let sighting = Sighting {
            webhook: "billing".to_owned(),
            door: Door::Report,
            kid: Kid::parse("k_1").expect("kid"),
            body_sha256: [0xab; 32],
            accepted: Some(true),
            status: Some(204),
            replica: Some("a".to_owned()),
            facts: Facts { peer: Some([127, 0, 0, 1].into()), ..Facts::default() },
        };
        assert_eq!(sighting.detail(), serde_json::json!({"status": 204, "replica": "a", "peer": "127.0.0.1"}));
    }

    #[test]
    fn the_event_is_found_under_either_name_and_cleaned() {
        assert_eq!(event_of(br#"{"event":"call.completed","x":[1,{}]}"#).as_deref(), Some("call.completed"));
        assert_eq!(event_of(br#"{"event_type":"call\u0007_ended"}"#).as_deref(), Some("call_ended"));
        assert_eq!(event_of(format!(r#"{{"event":"{}"}}"#, "e".repeat(500)).as_bytes()).map(|e| e.len()), Some(120));
        for dull in ["", "[1]", r#"{"event":1}"#, r#"{"event":""}"#, r#"{"event":"x""#] {
            assert_eq!(event_of(dull.as_bytes()), None, "{dull}");
        }
    }
}
