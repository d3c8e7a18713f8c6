//! What is tried on bytes from outside. Each target is a plain function that panics where something is not so; `cargo fuzz`
//! feeds it, and so does `tests/corpus.rs`, from the files in `corpus/`.

mod admin;
mod config;
mod delivery;
mod dialnexa;
mod door;
mod keystore;
mod record;
mod status;

pub use admin::admin;
pub use config::config;
pub use delivery::delivery;
pub use dialnexa::dialnexa;
pub use door::door;
pub use keystore::{keystore_env, keystore_json};
pub use record::record;
pub use status::status;

/// What is done with one input.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("admin", admin),
    ("config", config),
    ("delivery", delivery),
    ("dialnexa", dialnexa),
    ("door", door),
    ("keystore_env", keystore_env),
    ("keystore_json", keystore_json),
    ("record", record),
    ("status", status),
];

/// `Name: value` lines, an empty line, and the rest as it is.
fn head_and_body(data: &[u8]) -> (Vec<(&str, &str)>, &[u8]) {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &data[data.len()..]),
    };
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    (lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim())).collect(), body)
}

/// `whsec_` values in a text from outside that must not be in `said`, where nothing else in the text is the same.
fn no_signing_secret(text: &str, said: &str) {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=');
    let mut parts = text.split("whsec_");
    let mut elsewhere = parts.next().unwrap_or_default().to_owned();
    let mut secrets = Vec::new();
    for after in parts {
        let end = after.find(|c| !part(c)).unwrap_or(after.len());
        secrets.push(&after[..end]);
        elsewhere.push('\n');
        elsewhere.push_str(&after[end..]);
    }
    for secret in secrets.into_iter().filter(|secret| secret.len() >= 12 && !elsewhere.contains(secret)) {
        assert!(!said.contains(secret), "{secret} is told: {said}");
    }
}
