use std::net::IpAddr;

use http::{HeaderMap, header::USER_AGENT};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Rise, verify::Match};
use crate::{
    config::Door,
    secret::{Kid, Standing},
};

/// A delivery that became known with a key of its webhook; the one thing that all doors make. It may also be one of
/// hookturn's own probes come back: that is told by `body_sha256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub webhook: String,
    pub door: Door,
    pub kid: Kid,
    /// How the keyring listed the key when the delivery came; `None` where no keyring was looked at.
    pub standing: Option<Standing>,
    /// Of the raw body. For a rise of a counter, which has none: of everything that tells this rise from another.
    pub body_sha256: [u8; 32],
    /// Whether the consumer accepted the delivery, where the door knows.
    pub accepted: Option<bool>,
    /// What the consumer answered, where it says so.
    pub status: Option<u16>,
    pub replica: Option<String>,
    pub facts: Facts,
}

/// What else is known of a request: for people, never for a decision. Everything in it is bounded and printable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    pub peer: Option<IpAddr>,
    pub user_agent: Option<String>,
    /// What the body calls itself (`event` or `event_type`), of a delivery that verified.
    pub event: Option<String>,
    /// The signature's header and whether it had the `sha256=` prefix, of a delivery that verified.
    pub header: Option<&'static str>,
    pub prefixed: Option<bool>,
    /// Of the body, in bytes.
    pub length: usize,
}

/// Why something that came through a door is no evidence. A closed set, so that each can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NoSignature,
    Malformed,
    /// More than one value of a signature header.
    Repeated,
    Mismatch,
    /// A mismatch of a body with a `Content-Encoding`.
    ContentEncoding,
    /// The door asks for a token, and it was missing or wrong.
    BadToken,
    /// A report of a key that the webhook does not have.
    UnknownKid,
    /// Larger than the cap.
    TooLarge,
    /// Cut off, or slower than the time that a body is given.
    Incomplete,
    /// A report that cannot be read.
    BadReport,
}

impl Sighting {
    /// What is kept of it for `explain`.
    pub fn detail(&self) -> Value {
        let mut detail = serde_json::to_value(&self.facts).unwrap_or_default();
        if let Value::Object(fields) = &mut detail {
            fields.insert("replica".to_owned(), json!(self.replica));
            fields.insert("status".to_owned(), json!(self.status));
            fields.retain(|_, value| !value.is_null());
        }
        detail
    }

    /// A rise of a replica's counter. `verified` is counted by the consumer where it accepts a delivery.
    pub fn of_rise(webhook: &str, rise: &Rise) -> Sighting {
        let Rise { kid, replica, started_at, verified, .. } = rise;
        let identity = format!("hookturn/rise/1\0{webhook}\0{replica}\0{started_at}\0{kid}\0{verified}");
        Sighting {
            webhook: webhook.to_owned(),
            door: Door::Keystore,
            kid: *kid,
            standing: None,
            body_sha256: Sha256::digest(identity).into(),
            accepted: Some(true),
            status: None,
            replica: Some(replica.clone()),
            facts: Facts::default(),
        }
    }
}

impl Facts {
    const USER_AGENT_CHARS: usize = 120;
    const EVENT_CHARS: usize = 64;

    pub(super) fn of_request(peer: Option<IpAddr>, headers: &HeaderMap) -> Facts {
        let user_agent = headers.get(USER_AGENT).map(|value| printable(&latin(value.as_bytes()), Self::USER_AGENT_CHARS));
        Facts { peer, user_agent, ..Facts::default() }
    }

    /// Adds what is worth knowing of a delivery that verified.
    pub(super) fn matched(mut self, found: &Match, body: &[u8]) -> Facts {
        self.event = event_of(body).map(|event| printable(&event, Self::EVENT_CHARS));
        self.header = Some(found.header);
        self.prefixed = Some(found.prefixed);
        self
    }
}

impl Reason {
    /// The label that metrics and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoSignature => "no_signature",
            Reason::Malformed => "malformed",
            Reason::Repeated => "repeated",
            Reason::Mismatch => "mismatch",
            Reason::ContentEncoding => "content_encoding",
            Reason::BadToken => "bad_token",
            Reason::UnknownKid => "unknown_kid",
            Reason::TooLarge => "too_large",
            Reason::Incomplete => "incomplete",
            Reason::BadReport => "bad_report",
        }
    }
}

/// The first `most` characters, with a `?` for each that could disturb a terminal or a log line.
pub(super) fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Header bytes as text, and no more of them than anybody will read.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().take(4 * Facts::USER_AGENT_CHARS).map(|byte| char::from(*byte)).collect()
}

fn event_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Shallow<'a> {
        #[serde(borrow)]
        event: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        event_type: Option<std::borrow::Cow<'a, str>>,
    }
    let found: Shallow<'_> = serde_json::from_slice(body).ok()?;
    found.event.or(found.event_type).map(|event| event.chars().take(Facts::EVENT_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_read_under_both_names_and_nothing_is_made_of_nonsense() {
        assert_eq!(event_of(br#"{"event":"call.completed","x":{"event":"no"}}"#).as_deref(), Some("call.completed"));
        assert_eq!(event_of(br#"{"event_type":"call_ended"}"#).as_deref(), Some("call_ended"));
        for nonsense in [&b"{"[..], b"[]", br#"{"event":7}"#, b"\xff", b"", br#"{"payload":{}}"#] {
            assert_eq!(event_of(nonsense), None);
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(event_of(deep.as_bytes()), None);
    }

    #[test]
    fn facts_are_bounded_and_printable() {
        let mut headers = HeaderMap::new();
        let hostile = [b"evil\t[31m\xff".as_slice(), &[b'a'; 5000]].concat();
        headers.insert(USER_AGENT, hostile.try_into().expect("a header value"));
        let facts = Facts::of_request(None, &headers);
        let agent = facts.user_agent.expect("a user agent");
        assert_eq!(agent.len(), Facts::USER_AGENT_CHARS);
        assert!(agent.starts_with("evil?[31m?aaa"));
    }

    #[test]
    fn the_detail_leaves_out_what_is_not_known() {
        let kid = Kid::parse("k").expect("a kid");
        let started_at = chrono::DateTime::UNIX_EPOCH;
        let rise = Rise { kid, replica: "web-1".to_owned(), started_at, verified: 7, by: 1, dated: true };
        assert_eq!(Sighting::of_rise("billing", &rise).detail(), json!({"length": 0, "replica": "web-1"}));
    }
}
