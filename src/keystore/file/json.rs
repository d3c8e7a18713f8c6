//! The JSON form: version 1, any number of keys, every listed key accepted.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use zeroize::Zeroizing;

use super::{Parsed, Times};
use crate::{
    keystore::{Contents, Key, KeyState},
    secret::{Kid, Secret},
};

const VERSION: u64 = 1;

/// Reads a whole file. Unknown fields are ignored; the reason of a refusal quotes no value of the file.
pub(super) fn parse(bytes: &[u8], webhook_id: &str) -> Result<Parsed, String> {
    let Versioned { version } = decode(bytes)?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this hookturn knows version {VERSION}: use a newer hookturn"));
    }
    let found: Found = decode(bytes)?;
    if found.generation == 0 {
        return Err("its generation is 0; the first one is 1".to_owned());
    }
    if found.webhook.and_then(|webhook| webhook.id).is_some_and(|id| id != webhook_id) {
        return Err(format!("it belongs to another webhook than {webhook_id}: give each webhook a path of its own"));
    }
    let mut parsed = Parsed { contents: Contents { generation: found.generation, keys: Vec::new() }, times: Vec::new() };
    for (at, key) in found.keys.into_iter().enumerate() {
        let (key, times) = key.check().map_err(|reason| format!("keys[{at}]: {reason}"))?;
        if parsed.contents.keys.iter().any(|other| other.kid == key.kid) {
            return Err(format!("keys[{at}]: the kid {} is there twice", key.kid));
        }
        parsed.times.push((key.kid, times));
        parsed.contents.keys.push(key);
    }
    Ok(parsed)
}

/// The whole file. Keys that stay keep the times that `old` has for them; the others begin `now`.
pub(super) fn render(
    next: &Contents,
    old: Option<&Parsed>,
    webhook_id: &str,
    now: DateTime<Utc>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let now = now.to_rfc3339_opts(SecondsFormat::Secs, true);
    let times = |kid: Kid| old.and_then(|old| old.times.iter().find(|(other, _)| *other == kid)).map(|(_, times)| times);
    let mut keys = Vec::new();
    for key in &next.keys {
        let Some(secret) = &key.secret else { return Err(format!("key {} has no secret", key.kid)) };
        let times = times(key.kid).cloned().unwrap_or_default();
        keys.push(WrittenKey {
            kid: key.kid,
            state: key.state.as_str(),
            secret: secret.expose(),
            secret_encoding: "utf8",
            created_at: times.created_at.unwrap_or_else(|| now.clone()),
            accept_from: times.accept_from.unwrap_or_else(|| now.clone()),
            accept_until: None,
        });
    }
    let written = Written {
        version: VERSION,
        generation: next.generation,
        webhook: WrittenWebhook { provider: "dialnexa", plane: "user", id: webhook_id },
        scheme: SCHEME,
        keys,
    };
    // Reserved at once, so that no half-grown copy of a secret is left in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2048 + next.keys.len() * (Secret::MAX_BYTES * 6 + 512)));
    serde_json::to_writer_pretty(&mut *bytes, &written).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// How a consumer is to check a delivery. The two header names are both in use at DialNexa.
const SCHEME: Scheme = Scheme {
    headers: &["x-nexa-signature", "x-dialnexa-signature"],
    algorithm: "hmac-sha256",
    encoding: "hex",
    prefix: "optional",
    signed: "raw-body",
};

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    generation: u64,
    webhook: WrittenWebhook<'a>,
    scheme: Scheme,
    keys: Vec<WrittenKey<'a>>,
}

#[derive(Serialize)]
struct WrittenWebhook<'a> {
    provider: &'static str,
    plane: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
struct Scheme {
    headers: &'static [&'static str],
    algorithm: &'static str,
    encoding: &'static str,
    prefix: &'static str,
    signed: &'static str,
}

#[derive(Serialize)]
struct WrittenKey<'a> {
    kid: Kid,
    state: &'static str,
    secret: &'a str,
    secret_encoding: &'static str,
    created_at: String,
    accept_from: String,
    accept_until: Option<String>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Deserialize)]
struct Found {
    generation: u64,
    webhook: Option<FoundWebhook>,
    keys: Vec<FoundKey>,
}

#[derive(Deserialize)]
struct FoundWebhook {
    id: Option<String>,
}

#[derive(Deserialize)]
struct FoundKey {
    kid: String,
    state: String,
    #[serde(deserialize_with = "wiped")]
    secret: Zeroizing<String>,
    secret_encoding: Option<String>,
    created_at: Option<String>,
    accept_from: Option<String>,
    accept_until: Option<serde::de::IgnoredAny>,
}

impl FoundKey {
    fn check(self) -> Result<(Key, Times), String> {
        let kid = Kid::parse(&self.kid).map_err(|error| format!("kid: {error}"))?;
        let state = KeyState::parse(&self.state).ok_or("state is none of \"current\", \"pending\", \"previous\"")?;
        if self.secret_encoding.is_some_and(|encoding| encoding != "utf8") {
            return Err("secret_encoding is not \"utf8\", the only one there is".to_owned());
        }
        if self.accept_until.is_some() {
            return Err(
                "accept_until is set: a key that times out loses deliveries; set it to null, or remove the key".to_owned()
            );
        }
        let secret = Secret::parse(&self.secret).map_err(|error| error.to_string())?;
        let times = Times { created_at: self.created_at, accept_from: self.accept_from };
        Ok((Key { kid, state, secret: Some(secret) }, times))
    }
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = match error.classify() {
            Category::Eof => "it ends too early (half written?)".to_owned(),
            Category::Data => quoted_safely(&error),
            Category::Syntax | Category::Io => "it is not JSON from here on".to_owned(),
        };
        format!("line {} column {}: {why}", error.line(), error.column())
    })
}

/// The parser's own words quote what it found, which may be a secret; those that name a field of ours are safe.
fn quoted_safely(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split(" at line ").next() {
        Some(field) if field.starts_with("missing field") || field.starts_with("duplicate field") => field.to_owned(),
        _ => "a value of the wrong kind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "whk_c9v3nz8rq4pm";

    fn reason(text: &str) -> String {
        parse(text.as_bytes(), ID).err().unwrap_or_else(|| panic!("{text} was taken"))
    }

    #[test]
    fn what_is_written_is_read_back_and_has_the_documented_shape() {
        let old = parse(
            br#"{"version":1,"generation":6,"extra":[],"keys":[{"kid":"a","state":"current","secret":"whsec_a","created_at":"2026-01-01T00:00:00Z","note":1}]}"#,
            ID,
        )
        .expect("old");
        let keys = [("a", KeyState::Current), ("b", KeyState::Pending)].map(|(kid, state)| Key {
            kid: Kid::parse(kid).expect("kid"),
            state,
            secret: Secret::parse(&format!("whsec_{kid}\"\\é")).ok(),
        });
        let next = Contents { generation: 7, keys: keys.to_vec() };
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("time");
        let bytes = render(&next, Some(&old), ID, now).expect("render");
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("json");
        assert_eq!(json["keys"][0]["created_at"], "2026-01-01T00:00:00Z");
        assert_eq!(json["keys"][0]["accept_from"], "2027-01-15T08:00:00Z");
        assert_eq!(json["keys"][1]["created_at"], "2027-01-15T08:00:00Z");
        assert!(json["keys"][1]["accept_until"].is_null());
        assert_eq!(json["keys"][1]["secret_encoding"], "utf8");
        assert_eq!(json["webhook"], serde_json::json!({"provider": "dialnexa", "plane": "user", "id": ID}));
        assert_eq!(json["scheme"]["signed"], "raw-body");
        let back = parse(&bytes, ID).expect("read back").contents;
        assert_eq!((back.generation, back.keys.len(), back.keys[1].state), (7, 2, KeyState::Pending));
        let same = |at: usize| matches!((&back.keys[at].secret, &next.keys[at].secret), (Some(a), Some(b)) if a.same_as(b));
        assert!(same(0) && same(1));
    }

    #[test]
    fn what_is_not_a_keystore_is_refused_with_the_place_and_never_with_a_value() {
        let key = |rest: &str| format!(r#"{{"version":1,"generation":1,"keys":[{{"kid":"a",{rest}}}]}}"#);
        for (text, expected) in [
            ("{\"version\":1,\n\"generation\":7,\"ke".to_owned(), "line 2 column 18: it ends too early"),
            ("CURRENT=whsec_canary".to_owned(), "line 1 column 1: it is not JSON"),
            (r#"{"version":2,"keyring":"whsec_canary"}"#.to_owned(), "version 2"),
            (r#"{"version":1,"keys":[]}"#.to_owned(), "missing field `generation`"),
            (r#"{"version":1,"generation":"whsec_canary","keys":[]}"#.to_owned(), "a value of the wrong kind"),
            (r#"{"version":1,"generation":0,"keys":[]}"#.to_owned(), "generation is 0"),
            (r#"{"version":1,"generation":1,"keys":[],"webhook":{"id":"whsec_canary"}}"#.to_owned(), "another webhook"),
            (key(r#""state":"whsec_canary","secret":"x""#), "keys[0]: state is none of"),
            (key(r#""state":"current","secret":"whsec canary""#), "keys[0]: character 6"),
            (key(r#""state":"current","secret":"x","secret_encoding":"hex""#), "keys[0]: secret_encoding"),
            (key(r#""state":"current","secret":"x","accept_until":"2026-01-01T00:00:00Z""#), "keys[0]: accept_until"),
        ] {
            let reason = reason(&text);
            assert!(reason.contains(expected), "{text}: {reason}");
            assert!(!reason.contains("canary"), "{reason}");
        }
        let twice = r#"{"version":1,"generation":1,"keys":[{"kid":"a","state":"current","secret":"x"},{"kid":"a","state":"previous","secret":"y"}]}"#;
        assert!(reason(twice).contains("keys[1]: the kid a is there twice"));
    }
}
