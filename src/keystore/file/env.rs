//! The form for frameworks that read their secrets from the environment: two slots, `CURRENT` and `PREVIOUS`.
//!
//! ```text
//! # hookturn version=1 generation=7 current=current previous=pending
//! # Written by hookturn. A consumer accepts both. Changes by hand are kept only in these variables.
//! CURRENT_KID=k_5be2a7c90d1f4e83
//! CURRENT=whsec_...
//! PREVIOUS_KID=k_91c04d7be5a2f638
//! PREVIOUS=whsec_...
//! ```
//!
//! - `CURRENT` holds the key whose state is current (or the first, where none is), `PREVIOUS` the other accepted one, also
//!   when that is the *next* secret: a consumer accepts both. The first line says the state of each slot.
//! - Values are written bare, so that systemd, shells and container runtimes read the same; a value that needs quotes is
//!   refused, and so is a variable that is not ours. Generated secrets always fit.
//! - A file that a person wrote has no first line. It counts as generation 1, its keys as `env-current` and `env-previous`
//!   unless the KID variables say otherwise.

use zeroize::Zeroizing;

use super::Parsed;
use crate::{
    keystore::{Contents, Key, KeyState},
    secret::{Kid, Secret},
};

pub(super) const SLOTS: u8 = 2;

const MARK: &str = "# hookturn ";
const NOTICE: &str = "# Written by hookturn. A consumer accepts both. Changes by hand are kept only in these variables.";

/// Reads a whole file. The reason of a refusal names the line and quotes no value.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let mut variables = Variables::default();
    let mut header = None;
    for (at, line) in text.lines().enumerate() {
        let said = |reason: &str| format!("line {}: {reason}", at + 1);
        let line = line.trim();
        if let Some(rest) = line.strip_prefix(MARK) {
            header = Some(Header::parse(rest).map_err(|reason| said(&reason))?);
        } else if !line.is_empty() && !line.starts_with('#') {
            variables.take(line).map_err(|reason| said(&reason))?;
        }
    }
    if header.is_some() && !text.ends_with('\n') {
        return Err(format!("line {}: it ends too early (half written?)", text.lines().count()));
    }
    let header = header.unwrap_or(Header { generation: 1, states: [None, None] });
    let mut keys: Vec<Key> = Vec::new();
    for (slot, announced) in SLOT_NAMES.iter().zip(header.states) {
        let state = announced.unwrap_or(slot.state);
        match variables.key(slot, state)? {
            Some(key) if keys.iter().any(|other| other.kid == key.kid) => {
                return Err(format!("both slots name the kid {}", key.kid));
            }
            Some(key) => keys.push(key),
            None if announced.is_some() => return Err(format!("{} is missing (half written?)", slot.value)),
            None => {}
        }
    }
    if keys.is_empty() {
        return Err("it holds neither CURRENT nor PREVIOUS".to_owned());
    }
    Ok(Parsed { contents: Contents { generation: header.generation, keys }, times: Vec::new() })
}

/// The whole file.
pub(super) fn render(next: &Contents) -> Result<Zeroizing<Vec<u8>>, String> {
    let first = next.keys.iter().position(|key| key.state == KeyState::Current).unwrap_or(0);
    let mut keys: Vec<&Key> = next.keys.iter().collect();
    keys[..=first].rotate_right(1);

    let mut text = Zeroizing::new(String::with_capacity(1024 + keys.len() * (Secret::MAX_BYTES + 128)));
    text.push_str(&format!("{MARK}version=1 generation={}", next.generation));
    for (slot, key) in SLOT_NAMES.iter().zip(&keys) {
        text.push_str(&format!(" {}={}", slot.announced, key.state.as_str()));
    }
    text.push('\n');
    text.push_str(NOTICE);
    text.push('\n');
    for (slot, key) in SLOT_NAMES.iter().zip(keys) {
        let Some(secret) = &key.secret else { return Err(format!("key {} has no secret", key.kid)) };
        if !secret.expose().bytes().all(bare) {
            return Err(format!("the secret {} holds a character that {READ_DIFFERENTLY}", key.kid));
        }
        for part in [slot.kid, "=", key.kid.as_str(), "\n", slot.value, "=", secret.expose(), "\n"] {
            text.push_str(part);
        }
    }
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

const READ_DIFFERENTLY: &str = "readers of env files understand differently: use format = \"json\"";

/// What needs no quotes and means itself in a shell, in systemd's EnvironmentFile and in a container's env file.
fn bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-./+=:,@%".contains(&byte)
}

struct Slot {
    value: &'static str,
    kid: &'static str,
    /// Its name in the first line.
    announced: &'static str,
    /// What it holds in a file without a first line.
    state: KeyState,
    kid_by_hand: &'static str,
}

const SLOT_NAMES: [Slot; SLOTS as usize] = [
    Slot { value: "CURRENT", kid: "CURRENT_KID", announced: "current", state: KeyState::Current, kid_by_hand: "env-current" },
    Slot {
        value: "PREVIOUS",
        kid: "PREVIOUS_KID",
        announced: "previous",
        state: KeyState::Previous,
        kid_by_hand: "env-previous",
    },
];

/// The first line: what the variables cannot say.
struct Header {
    generation: u64,
    states: [Option<KeyState>; SLOTS as usize],
}

impl Header {
    fn parse(text: &str) -> Result<Header, String> {
        let mut header = Header { generation: 0, states: [None, None] };
        let mut version = None;
        for (name, value) in text.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            if let Some(at) = SLOT_NAMES.iter().position(|slot| slot.announced == name) {
                header.states[at] = Some(KeyState::parse(value).ok_or(format!("{name}= is not a state"))?);
            } else if name == "generation" {
                header.generation = value.parse().map_err(|_| "generation= is not a number".to_owned())?;
            } else if name == "version" {
                version = Some(value);
            }
        }
        match version {
            Some("1") if header.generation > 0 => Ok(header),
            Some("1") => Err("generation= is missing or 0".to_owned()),
            _ => Err("it is not version=1, the one that this hookturn knows: use a newer hookturn".to_owned()),
        }
    }
}

#[derive(Default)]
struct Variables {
    values: Vec<(&'static str, Zeroizing<String>)>,
}

impl Variables {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.split_once('=').ok_or("it is not NAME=value")?;
        let known = SLOT_NAMES.iter().flat_map(|slot| [slot.value, slot.kid]).find(|known| *known == name);
        let Some(name) = known else {
            return Err("only CURRENT, PREVIOUS and their _KID are kept here: move the rest to a file of its own".to_owned());
        };
        if self.find(name).is_some() {
            return Err(format!("{name} is there twice"));
        }
        let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let value = quoted.unwrap_or(value);
        if !value.bytes().all(bare) {
            return Err(format!("{name} holds a character that {READ_DIFFERENTLY}"));
        }
        self.values.push((name, Zeroizing::new(value.to_owned())));
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// `None` where the slot is absent or empty.
    fn key(&self, slot: &Slot, state: KeyState) -> Result<Option<Key>, String> {
        let Some(value) = self.find(slot.value).filter(|value| !value.is_empty()) else { return Ok(None) };
        let secret = Secret::parse(value).map_err(|error| format!("{}: {error}", slot.value))?;
        let kid = self.find(slot.kid).filter(|kid| !kid.is_empty()).unwrap_or(slot.kid_by_hand);
        let kid = Kid::parse(kid).map_err(|error| format!("{}: {error}", slot.kid))?;
        Ok(Some(Key { kid, state, secret: Some(secret) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, state: KeyState, secret: &str) -> Key {
        Key { kid: Kid::parse(kid).expect("kid"), state, secret: Secret::parse(secret).ok() }
    }

    fn read(text: &str) -> Result<Contents, String> {
        parse(text.as_bytes()).map(|parsed| parsed.contents)
    }

    #[test]
    fn the_current_key_is_in_current_and_the_next_one_in_previous_until_it_is_current() {
        let keys = vec![key("k_new", KeyState::Pending, "whsec_b"), key("k_old", KeyState::Current, "whsec_a")];
        let bytes = render(&Contents { generation: 7, keys }).expect("render");
        let text = std::str::from_utf8(&bytes).expect("text");
        assert!(text.starts_with("# hookturn version=1 generation=7 current=current previous=pending\n"), "{text}");
        assert!(text.contains("\nCURRENT_KID=k_old\nCURRENT=whsec_a\nPREVIOUS_KID=k_new\nPREVIOUS=whsec_b\n"), "{text}");
        let back = read(text).expect("read");
        assert_eq!(back.generation, 7);
        assert_eq!(back.keys.iter().map(|key| key.state).collect::<Vec<_>>(), [KeyState::Current, KeyState::Pending]);
    }

    #[test]
    fn a_single_key_is_in_current_whatever_its_state() {
        let bytes = render(&Contents { generation: 1, keys: vec![key("k", KeyState::Pending, "whsec_b")] }).expect("render");
        let back = parse(&bytes).expect("read").contents;
        assert_eq!((back.keys.len(), back.keys[0].state), (1, KeyState::Pending));
    }

    #[test]
    fn a_file_made_by_hand_is_the_first_generation_with_kids_of_the_slots() {
        let back = read("# mine\nCURRENT=\"whsec_a\"\nPREVIOUS=").expect("read");
        assert_eq!((back.generation, back.keys.len(), back.keys[0].kid.as_str()), (1, 1, "env-current"));
        assert_eq!(back.keys[0].secret.as_ref().map(Secret::expose), Some("whsec_a"));
    }

    #[test]
    fn what_would_be_lost_or_read_differently_is_refused_without_quoting_it() {
        let whole = "# hookturn version=1 generation=7 current=current previous=pending\nCURRENT=a\nPREVIOUS=b\n";
        assert!(read(whole).is_ok());
        for (text, expected) in [
            (&whole[..whole.len() - 1], "line 3: it ends too early"),
            (&whole[..whole.len() - 11], "PREVIOUS is missing"),
            ("DATABASE_URL=canary\nCURRENT=a\n", "line 1: only CURRENT"),
            ("export CURRENT=canary\n", "line 1: only CURRENT"),
            ("CURRENT=a\nCURRENT=canary\n", "line 2: CURRENT is there twice"),
            ("CURRENT='ca$nary'\n", "line 1: CURRENT holds a character"),
            ("CURRENT=a # canary\n", "line 1: CURRENT holds a character"),
            ("canary\n", "line 1: it is not NAME=value"),
            ("# nothing\n", "neither CURRENT nor PREVIOUS"),
            ("CURRENT=a\nPREVIOUS=b\nCURRENT_KID=x\nPREVIOUS_KID=x\n", "both slots name the kid x"),
            ("# hookturn version=2 generation=7\nCURRENT=a\n", "line 1: it is not version=1"),
        ] {
            let reason = read(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(reason.contains(expected) && !reason.contains("nary"), "{text}: {reason}");
        }
        let odd = Contents { generation: 1, keys: vec![key("k", KeyState::Current, "a$b")] };
        assert!(render(&odd).is_err_and(|reason| reason.contains("json") && !reason.contains("a$b")));
    }
}
