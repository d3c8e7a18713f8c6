//! From a TOML value to one of the shapes of `raw.rs`; a wrong shape becomes a sentence, the key underlined.

use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::{Problem, nearest::nearest};

pub(super) fn shape<T: DeserializeOwned>(value: Spanned<DeValue>) -> Result<T, Problem> {
    T::deserialize(ValueDeserializer::from(value)).map_err(|e| problem(&e))
}

/// A key that is not known where it stands.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(format!("unknown key `{key}`")).label("not known here");
    if key == "gateway" || key == "receive" {
        return problem.help(
            "the gateway is said for a webhook: [[webhook]] gateway = { upstream = ... }; its address is `listen.gateway`",
        );
    }
    if let Some((_, home)) = HOMES.iter().find(|(k, home)| *k == key && known.contains(home)) {
        return problem.help(format!("`{key}` belongs in the table `{home}`: {home} = {{ {key} = ... }}"));
    }
    match nearest(key, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help(format!("known here: {}", known.join(", "))),
    }
}

/// What the TOML parser or serde says, in our words. Values are left out: they may be what should not be printed.
pub(super) fn problem(e: &toml::de::Error) -> Problem {
    let problem = match e.message() {
        message if message.starts_with("unknown field `") => {
            let mut quoted = message.split('`').skip(1).step_by(2);
            let key = quoted.next().unwrap_or_default();
            unknown_key(key, &quoted.collect::<Vec<_>>())
        }
        message => match message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
            Some((found, expected)) => Problem::new(format!("expected {}, found {}", plain(expected), plain(found)))
                .label("not what belongs here")
                .help(TOML),
            None => Problem::new(message.lines().collect::<Vec<_>>().join(", ")).label("here").help(TOML),
        },
    };
    match e.span() {
        Some(span) => problem.at(span),
        None => problem,
    }
}

const TOML: &str = "texts and durations are written in quotes, lists in [ ], tables in { } or below a [head]";

/// Keys that are easily written one level too high.
const HOMES: [(&str, &str); 25] = [
    ("upstream", "gateway"),
    ("mode", "gateway"),
    ("resign", "gateway"),
    ("answers", "tap"),
    ("timeout", "patch"),
    ("repeat_min", "patch"),
    ("repeat_max", "patch"),
    ("kind", "keystore"),
    ("path", "keystore"),
    ("format", "keystore"),
    ("reload", "keystore"),
    ("wait", "preflight"),
    ("probe", "preflight"),
    ("probe_body", "preflight"),
    ("read_back", "preflight"),
    ("replicas", "preflight"),
    ("status", "preflight"),
    ("unproven", "preflight"),
    ("sources", "verify"),
    ("require", "verify"),
    ("ignore", "verify"),
    ("min_deliveries", "verify"),
    ("min_span", "verify"),
    ("report_token", "verify"),
    ("tap_token", "verify"),
];

/// A type of serde's in plain words, less the value that may follow it.
fn plain(text: &str) -> &str {
    let kinds = [
        ("string", "a text"),
        ("a string", "a text in quotes"),
        ("integer", "a number"),
        ("floating point", "a number"),
        ("boolean", "true or false"),
        ("a boolean", "true or false"),
        ("sequence", "a list"),
        ("a sequence", "a list in brackets: [...]"),
        ("map", "a table"),
    ];
    let value_follows = |kind: &str| text.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '`']));
    kinds.iter().find(|(kind, _)| value_follows(kind)).map_or(text, |(_, words)| words)
}
