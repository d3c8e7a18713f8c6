//! What the file may say: every key, its shape, and where it stands. What it means is decided in `check.rs`.
//!
//! Everything is optional here: a default is not a property of the shape but a value in `config/hookturn.toml`, which is
//! laid under the person's file before this is read (see `layers.rs`).

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_spanned::Spanned;

/// A text and where it stands. An empty span: it comes from the defaults.
pub type Text = Spanned<String>;

/// The tables of the top level.
pub const SECTIONS: [&str; 6] = ["dialnexa", "store", "listen", "notify", "defaults", "webhook"];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Dialnexa {
    pub base_url: Option<Text>,
    pub api_key: Option<Spanned<Credential>>,
    pub ca_file: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "one of { credential = \"NAME\" }, { file = \"PATH\" }, { env = \"NAME\" }")]
pub struct Credential {
    pub credential: Option<Text>,
    pub file: Option<Text>,
    pub env: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Store {
    pub url: Option<Text>,
    pub sealing_key: Option<Spanned<Credential>>,
    pub anchor: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Listen {
    pub deliveries: Option<Text>,
    pub admin: Option<Text>,
    pub status: Option<Text>,
    pub gateway: Option<Text>,
    pub max_body: Option<Spanned<Scalar>>,
    pub header_timeout: Option<Spanned<Scalar>>,
    pub body_timeout: Option<Spanned<Scalar>>,
    pub gateway_connections: Option<Spanned<Scalar>>,
    pub gateway_memory: Option<Spanned<Scalar>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Notify {
    pub exec: Option<Spanned<Vec<Text>>>,
    pub timeout: Option<Spanned<Scalar>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Webhook {
    pub name: Option<Text>,
    pub id: Option<Text>,
    pub plane: Option<Text>,
    pub every: Option<Spanned<Scalar>>,
    pub schedule: Option<Text>,
    pub only_between: Option<Text>,
    pub timezone: Option<Text>,
    pub jitter: Option<Spanned<Scalar>>,
    pub drain: Option<Spanned<Scalar>>,
    pub quarantine: Option<Spanned<Scalar>>,
    pub on_reject: Option<Text>,
    pub patch: Option<Patch>,
    pub keystore: Option<Spanned<Keystore>>,
    pub preflight: Option<Preflight>,
    pub verify: Option<Verify>,
    pub tap: Option<Tap>,
    pub gateway: Option<Spanned<Gateway>>,
    pub stimulus: Option<Stimulus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Patch {
    pub timeout: Option<Spanned<Scalar>>,
    pub repeat_min: Option<Spanned<Scalar>>,
    pub repeat_max: Option<Spanned<Scalar>>,
}

/// Flat on purpose: which keys belong to which kind is said by `webhook.rs`, with the key underlined.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { kind = \"file\", path = \"...\" }")]
pub struct Keystore {
    pub kind: Option<Text>,
    pub path: Option<Text>,
    pub format: Option<Text>,
    pub reload: Option<Spanned<Vec<Text>>>,
    pub reload_timeout: Option<Spanned<Scalar>>,
    pub command: Option<Spanned<Vec<Text>>>,
    pub timeout: Option<Spanned<Scalar>>,
    pub slots: Option<Spanned<Scalar>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Preflight {
    pub wait: Option<Spanned<Scalar>>,
    pub probe: Option<Spanned<Vec<Text>>>,
    pub probe_body: Option<Text>,
    pub read_back: Option<Spanned<Vec<Text>>>,
    pub read_back_token: Option<Spanned<Credential>>,
    pub replicas: Option<Text>,
    pub status: Option<Spanned<bool>>,
    pub unproven: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Verify {
    pub sources: Option<Spanned<Vec<Text>>>,
    pub require: Option<Spanned<Words>>,
    pub ignore: Option<Spanned<Vec<Spanned<Ignore>>>>,
    pub min_deliveries: Option<Spanned<Scalar>>,
    pub min_span: Option<Spanned<Scalar>>,
    pub report_token: Option<Spanned<Credential>>,
    pub tap_token: Option<Spanned<Credential>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { answers = \"unix:...\" }")]
pub struct Tap {
    pub answers: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { upstream = \"http://127.0.0.1:9000/hook\" }")]
pub struct Gateway {
    pub upstream: Option<Text>,
    pub mode: Option<Text>,
    pub resign: Option<Spanned<Credential>>,
    pub timeout: Option<Spanned<Scalar>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ header = \"NAME\" } or { address = \"10.0.0.0/8\" }")]
pub struct Ignore {
    pub header: Option<Text>,
    pub value: Option<Text>,
    pub address: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Stimulus {
    pub command: Option<Spanned<Vec<Text>>>,
    pub post: Option<Text>,
    pub token: Option<Spanned<Credential>>,
    pub after: Option<Spanned<Scalar>>,
    pub timeout: Option<Spanned<Scalar>>,
}

/// One word, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words::One(text.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words::Many(words))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// A duration, a size or a count as written. A bare number passes here, so that its check can say what unit it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub String);

impl AsRef<str> for Scalar {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
