use std::fmt;

use rand::{TryRng, rngs::SysRng};
use serde::{Deserialize, Serialize};

use super::NoRandomness;

/// The key id of a secret: an opaque name, never derived from the secret.
///
/// Ours are `k_` and 16 random hex digits. A keystore that people wrote by hand may hold others, of up to
/// [`Kid::MAX_BYTES`] letters, digits, `.`, `_`, `-`. It is stored inline, so that the core can copy it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kid {
    bytes: [u8; Kid::MAX_BYTES],
    len: u8,
}

/// Why a text cannot be a key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 1 to {} letters, digits, '.', '_' or '-'", Kid::MAX_BYTES)]
pub struct BadKid;

impl Kid {
    pub const MAX_BYTES: usize = 47;

    /// A new random key id.
    pub fn generate() -> Result<Kid, NoRandomness> {
        let mut bytes = [0u8; 8];
        SysRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
        let mut text = [0u8; 18];
        text[..2].copy_from_slice(b"k_");
        let digits = b"0123456789abcdef";
        for (i, byte) in bytes.iter().enumerate() {
            text[2 + 2 * i] = digits[usize::from(byte >> 4)];
            text[3 + 2 * i] = digits[usize::from(byte & 15)];
        }
        Ok(Kid::from_ascii(&text))
    }

    pub fn parse(text: &str) -> Result<Kid, BadKid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(allowed) {
            return Err(BadKid);
        }
        Ok(Kid::from_ascii(text.as_bytes()))
    }

    fn from_ascii(text: &[u8]) -> Kid {
        let mut bytes = [0u8; Self::MAX_BYTES];
        bytes[..text.len()].copy_from_slice(text);
        Kid { bytes, len: text.len() as u8 }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("?")
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Kid {
    type Error = BadKid;
    fn try_from(text: String) -> Result<Kid, BadKid> {
        Kid::parse(&text)
    }
}

impl From<Kid> for String {
    fn from(kid: Kid) -> String {
        kid.as_str().to_owned()
    }
}

impl std::str::FromStr for Kid {
    type Err = BadKid;
    fn from_str(text: &str) -> Result<Kid, BadKid> {
        Kid::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kid_round_trips_and_refuses_what_a_path_or_header_could_choke_on() {
        let kid = Kid::generate().expect("randomness");
        assert_eq!(Kid::parse(kid.as_str()), Ok(kid));
        assert_eq!(kid.as_str().len(), 18);
        for bad in ["", "a b", "a/b", "ü", &"x".repeat(48)] {
            assert_eq!(Kid::parse(bad), Err(BadKid), "{bad:?}");
        }
        assert!(Kid::parse("0d7f5a1e-8d55-4b5c-9d0e-5a2f7c1b3e44").is_ok());
    }
}
