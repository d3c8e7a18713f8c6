//! What a consumer reads from its keystore file. A consumer is somebody else's program: it shares the file's format with
//! hookturn, and no code.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::secret::{Kid, Secret, signature};

/// The keys of one generation.
pub(in crate::sandbox) struct Keys {
    pub(super) generation: u64,
    keys: Vec<Key>,
}

struct Key {
    kid: Kid,
    secret: Secret,
    current: bool,
    until: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct File {
    version: u64,
    generation: u64,
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    kid: Kid,
    state: String,
    #[serde(deserialize_with = "wiped")]
    secret: Zeroizing<String>,
    #[serde(default)]
    accept_until: Option<DateTime<Utc>>,
}

impl Keys {
    /// Nothing was read yet: every delivery is refused.
    pub(super) fn none() -> Keys {
        Keys { generation: 0, keys: Vec::new() }
    }

    /// Reads a whole file. A key in an unknown state is left out; anything else that is wrong refuses the file, and the
    /// caller keeps what it had. The reason quotes nothing of the file.
    pub(in crate::sandbox) fn parse(bytes: &[u8]) -> Result<Keys, &'static str> {
        let file: File = serde_json::from_slice(bytes).map_err(|_| "not a keystore file")?;
        if file.version != 1 {
            return Err("an unknown version");
        }
        let distinct: BTreeSet<Kid> = file.keys.iter().map(|entry| entry.kid).collect();
        if distinct.len() != file.keys.len() {
            return Err("a key id that is there twice");
        }
        let known = |entry: &Entry| matches!(entry.state.as_str(), "current" | "pending" | "previous");
        let keys: Result<Vec<Key>, _> = file.keys.into_iter().filter(known).map(Key::new).collect();
        Ok(Keys { generation: file.generation, keys: keys? })
    }

    /// The value in the state `current`.
    pub(in crate::sandbox) fn current(&self) -> Option<&Secret> {
        self.keys.iter().find(|key| key.current).map(|key| &key.secret)
    }

    pub(super) fn kids(&self) -> impl Iterator<Item = Kid> {
        self.keys.iter().map(|key| key.kid)
    }

    /// The key that one of the MACs of `body` was made with. Every key is tried against every MAC, without an early exit.
    pub(super) fn matching(&self, body: &[u8], macs: &[[u8; 32]], current_only: bool) -> Option<Kid> {
        let now = Utc::now();
        let mut found = None;
        for key in self.keys.iter().filter(|key| key.accepted_at(now) && (key.current || !current_only)) {
            let own = signature::mac(&key.secret, body);
            let same = macs.iter().fold(Choice::from(0), |same, mac| same | own.ct_eq(mac));
            if same.into() {
                found = Some(key.kid);
            }
        }
        found
    }
}

impl Key {
    fn new(entry: Entry) -> Result<Key, &'static str> {
        Ok(Key {
            kid: entry.kid,
            secret: Secret::parse(&entry.secret).map_err(|_| "a secret that cannot be one")?,
            current: entry.state == "current",
            until: entry.accept_until,
        })
    }

    fn accepted_at(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &str) -> Result<Keys, &'static str> {
        Keys::parse(format!(r#"{{"version":1,"generation":3,"keys":[{keys}]}}"#).as_bytes())
    }

    fn matching(keys: &Keys, secret: &str) -> Option<String> {
        let mac = signature::mac(&Secret::parse(secret).expect("a secret"), b"{}");
        keys.matching(b"{}", &[[0; 32], mac], false).map(|kid| kid.to_string())
    }

    #[test]
    fn every_key_in_a_known_state_is_accepted_and_an_unknown_state_is_not() {
        let keys = parse(
            r#"{"kid":"a","state":"current","secret":"whsec_a"},{"kid":"b","state":"pending","secret":"whsec_b"},
               {"kid":"c","state":"previous","secret":"whsec_c"},{"kid":"d","state":"burnt","secret":"whsec_d"}"#,
        );
        let keys = keys.unwrap_or_else(|reason| panic!("{reason}"));
        let found = ["whsec_a", "whsec_b", "whsec_c", "whsec_d"].map(|secret| matching(&keys, secret));
        assert_eq!(found, [Some("a".to_owned()), Some("b".to_owned()), Some("c".to_owned()), None]);
    }

    #[test]
    fn a_key_is_accepted_until_it_times_out_and_before_the_clock_says_so() {
        let keys = parse(
            r#"{"kid":"a","state":"current","secret":"whsec_a","accept_from":"2020-01-01T00:00:00Z","accept_until":null},
               {"kid":"b","state":"previous","secret":"whsec_b","accept_until":"2020-01-01T00:00:00Z"},
               {"kid":"c","state":"pending","secret":"whsec_c","accept_from":"2999-01-01T00:00:00Z"}"#,
        );
        let keys = keys.unwrap_or_else(|reason| panic!("{reason}"));
        let found = ["whsec_a", "whsec_b", "whsec_c"].map(|secret| matching(&keys, secret));
        assert_eq!(found, [Some("a".to_owned()), None, Some("c".to_owned())]);
    }

    #[test]
    fn a_doubled_kid_or_an_unknown_version_refuses_the_file() {
        let twice = r#"{"kid":"a","state":"current","secret":"x"},{"kid":"a","state":"pending","secret":"y"}"#;
        assert_eq!(parse(twice).err(), Some("a key id that is there twice"));
        assert_eq!(Keys::parse(br#"{"version":2,"generation":1,"keys":[]}"#).err(), Some("an unknown version"));
        assert_eq!(Keys::parse(br#"{"version":1,"#).err(), Some("not a keystore file"));
    }
}
