//! A signing secret, and everything that is allowed to touch one.
//!
//! [`Secret`] has no `Debug`, no `Display`, no `Serialize` and no `PartialEq`: a struct that holds one cannot derive
//! them either, so a leak needs a deliberate [`Secret::expose`], which is easy to search for.

mod keyring;
mod kid;
mod redact;
mod sealing;
pub mod signature;

pub use keyring::{Ahead, Keyring, Standing};
pub use kid::{BadKid, Kid};
pub use redact::redact;
pub use sealing::{Sealed, SealingError, SealingKey};

use base64::Engine;
use rand::{TryRng, rngs::SysRng};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A signing secret, as the text that DialNexa is given and whose UTF-8 bytes are the HMAC key (a `whsec_` prefix stays in).
///
/// ```compile_fail
/// # let secret = hookturn::secret::Secret::parse("whsec_x").unwrap();
/// println!("{secret:?}");
/// ```
/// ```compile_fail
/// # let secret = hookturn::secret::Secret::parse("whsec_x").unwrap();
/// let _ = secret == secret;
/// ```
/// ```compile_fail
/// # let secret = hookturn::secret::Secret::parse("whsec_x").unwrap();
/// let _ = serde_json::to_string(&secret);
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness(#[source] rand::rngs::SysError);

/// Why a text cannot be a signing secret. Says where, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    #[error("the secret is empty")]
    Empty,
    #[error("the secret is longer than {} bytes", Secret::MAX_BYTES)]
    TooLong,
    #[error("character {0} of the secret is white space or a control character; only one trailing newline is ignored")]
    WhiteSpace(usize),
}

impl Secret {
    /// No limit is documented by DialNexa; this one only keeps a wrong file from being taken for a secret.
    pub const MAX_BYTES: usize = 4096;

    /// A new secret: `whsec_` and 32 bytes from the operating system in unpadded base64url.
    pub fn generate() -> Result<Secret, NoRandomness> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        SysRng.try_fill_bytes(&mut *bytes).map_err(NoRandomness)?;
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str("whsec_");
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
        Ok(Secret(text))
    }

    /// Takes a secret that a person or a file supplies. One trailing newline is stripped; other white space is refused.
    pub fn parse(text: &str) -> Result<Secret, BadSecret> {
        let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        if text.is_empty() {
            return Err(BadSecret::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(BadSecret::TooLong);
        }
        if let Some(at) = text.chars().position(|c| c.is_whitespace() || c.is_control()) {
            return Err(BadSecret::WhiteSpace(at + 1));
        }
        Ok(Secret(Zeroizing::new(text.to_owned())))
    }

    /// The text itself. Call it only where the value must leave: the PATCH body, a keystore, an HMAC key.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether both are the same text, in constant time for texts of one length.
    pub fn same_as(&self, other: &Secret) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_is_whsec_and_43_url_safe_characters() {
        let secret = Secret::generate().expect("randomness");
        let tail = secret.expose().strip_prefix("whsec_").expect("prefix");
        assert_eq!(tail.len(), 43);
        assert!(tail.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert!(!secret.same_as(&Secret::generate().expect("randomness")));
    }

    #[test]
    fn one_trailing_newline_is_stripped_and_other_white_space_refused() {
        assert_eq!(Secret::parse("abc\n").ok().map(|s| s.expose().to_owned()), Some("abc".to_owned()));
        assert_eq!(Secret::parse("abc\r\n").ok().map(|s| s.expose().to_owned()), Some("abc".to_owned()));
        assert_eq!(Secret::parse("abc\n\n").err(), Some(BadSecret::WhiteSpace(4)));
        assert_eq!(Secret::parse("a bc").err(), Some(BadSecret::WhiteSpace(2)));
        assert_eq!(Secret::parse("\n").err(), Some(BadSecret::Empty));
    }
}
