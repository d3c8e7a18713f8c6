//! The signature of a delivery: HMAC-SHA256 over the raw body, keyed with the secret's UTF-8 bytes as they are, in hex.
//!
//! DialNexa's own pages disagree on the header's name and on the `sha256=` in front; real deliveries have been seen with
//! both names. So this reads every documented spelling and leaves the choice to whoever has the keys.
//! Nothing here compares: a comparison of [`Candidate::mac`] with [`mac`] must be in constant time.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

use super::Secret;

/// Every name under which the signature may come. HTTP header names have no case.
pub const HEADERS: [&str; 2] = ["x-nexa-signature", "x-dialnexa-signature"];

const PREFIX: &str = "sha256=";

/// One signature that a delivery claims to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The member of [`HEADERS`] that it came in.
    pub header: &'static str,
    /// Whether `sha256=` stood in front.
    pub prefixed: bool,
    pub mac: [u8; 32],
}

/// Why a delivery has no signature that could be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    #[error("no signature header ({} or {})", HEADERS[0], HEADERS[1])]
    Missing,
    /// No header is 64 hex digits, with or without `sha256=`.
    #[error("the signature header is not 64 hex digits")]
    Malformed,
    /// Two values of one name: which of them a consumer would take is anybody's guess, so neither is taken.
    #[error("the signature header is there more than once")]
    Repeated,
}

/// The signatures to try, at least one, in the order of [`HEADERS`].
///
/// A header that comes twice refuses the whole delivery. Where both names are there, each is tried; one of them being
/// malformed does not spoil the other.
pub fn candidates(headers: &HeaderMap) -> Result<Vec<Candidate>, SignatureProblem> {
    let mut found = Vec::new();
    let mut malformed = false;
    for header in HEADERS {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(SignatureProblem::Repeated);
        }
        match parse(header, value.as_bytes()) {
            Some(candidate) => found.push(candidate),
            None => malformed = true,
        }
    }
    match (found.is_empty(), malformed) {
        (false, _) => Ok(found),
        (true, true) => Err(SignatureProblem::Malformed),
        (true, false) => Err(SignatureProblem::Missing),
    }
}

/// The header value for `body`: `sha256=` and 64 lower-case hex digits.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    format!("{PREFIX}{}", hex::encode(mac(secret, body)))
}

/// The 32 bytes that a delivery of `body` signed with `secret` carries.
pub fn mac(secret: &Secret, body: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose().as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    mac.update(body);
    mac.finalize().into_bytes().into()
}

fn parse(header: &'static str, value: &[u8]) -> Option<Candidate> {
    let (prefixed, digits) = match value.split_at_checked(PREFIX.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(PREFIX.as_bytes()) => (true, rest),
        _ => (false, value),
    };
    let mut mac = [0u8; 32];
    hex::decode_to_slice(digits, &mut mac).ok()?;
    Some(Candidate { header, prefixed, mac })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const DIGITS: &str = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).expect("name"), HeaderValue::from_str(value).expect("value"))
        });
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_signature_is_the_well_known_vector() {
        let value = sign(&secret("key"), b"The quick brown fox jumps over the lazy dog");
        assert_eq!(value, format!("sha256={DIGITS}"));
    }

    #[test]
    fn a_whsec_prefix_is_part_of_the_key() {
        assert_ne!(mac(&secret("whsec_key"), b"body"), mac(&secret("key"), b"body"));
    }

    #[test]
    fn every_spelling_of_name_prefix_and_hex_is_read() {
        for (name, header) in [
            ("X-Nexa-Signature", HEADERS[0]),
            ("x-nexa-signature", HEADERS[0]),
            ("X-DialNexa-Signature", HEADERS[1]),
            ("x-dialnexa-signature", HEADERS[1]),
        ] {
            for (prefix, prefixed) in [("sha256=", true), ("SHA256=", true), ("Sha256=", true), ("", false)] {
                for digits in [DIGITS.to_owned(), DIGITS.to_uppercase()] {
                    let found = candidates(&headers(&[(name, &format!("{prefix}{digits}"))])).expect("a candidate");
                    let mac = mac(&secret("key"), b"The quick brown fox jumps over the lazy dog");
                    assert_eq!(found, [Candidate { header, prefixed, mac }]);
                }
            }
        }
    }

    #[test]
    fn both_names_give_two_candidates_and_a_malformed_one_does_not_spoil_the_other() {
        let both = candidates(&headers(&[(HEADERS[1], DIGITS), (HEADERS[0], &format!("sha256={DIGITS}"))])).expect("two");
        assert_eq!(both.iter().map(|c| (c.header, c.prefixed)).collect::<Vec<_>>(), [(HEADERS[0], true), (HEADERS[1], false)]);
        let one = candidates(&headers(&[(HEADERS[0], "sha256="), (HEADERS[1], DIGITS)])).expect("one");
        assert_eq!(one.iter().map(|c| c.header).collect::<Vec<_>>(), [HEADERS[1]]);
    }

    #[test]
    fn a_repeated_header_refuses_the_delivery_even_with_one_and_the_same_value() {
        let twice = headers(&[(HEADERS[0], DIGITS), (HEADERS[0], DIGITS), (HEADERS[1], DIGITS)]);
        assert_eq!(candidates(&twice), Err(SignatureProblem::Repeated));
    }

    #[test]
    fn what_is_not_32_bytes_of_hex_is_malformed_and_nothing_at_all_is_missing() {
        let joined = format!("{DIGITS},{DIGITS}");
        let spaced = format!("sha256= {DIGITS}");
        for bad in ["", "sha256=", "sha256", &DIGITS[1..], &DIGITS[2..], &format!("{DIGITS}00"), &joined, &spaced, "sha1=00"] {
            assert_eq!(candidates(&headers(&[(HEADERS[0], bad)])), Err(SignatureProblem::Malformed), "{bad:?}");
        }
        assert_eq!(candidates(&headers(&[("x-signature", DIGITS)])), Err(SignatureProblem::Missing));
    }

    #[test]
    fn a_value_that_is_no_text_is_malformed() {
        let mut map = HeaderMap::new();
        map.append(HEADERS[0], HeaderValue::from_bytes(b"sha256=\xff\xfe").expect("opaque bytes"));
        assert_eq!(candidates(&map), Err(SignatureProblem::Malformed));
    }
}
