//! The signature of a delivery, as the two ends of the sandbox write and read it.
//!
//! Deliberately not the code that hookturn verifies with: a look-alike that shared it would share its mistakes.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// The two names under which a signature may come; HTTP does not care about their case.
pub(super) const HEADERS: [&str; 2] = ["x-nexa-signature", "x-dialnexa-signature"];

/// HMAC-SHA256 of the raw body, keyed with the text of the secret, in hex.
pub(super) fn sign(secret: &Secret, body: &[u8]) -> String {
    hex::encode(keyed(secret, body).finalize().into_bytes())
}

/// The signatures that a request carries, with or without `sha256=`. A header that comes twice is none.
pub(super) fn presented(headers: &HeaderMap) -> Vec<[u8; 32]> {
    HEADERS.iter().filter_map(|name| only(headers, name)).filter_map(decode).collect()
}

/// Whether one of the signatures is that of `body` under `secret`; in constant time for each.
pub(super) fn verifies(secret: &Secret, body: &[u8], presented: &[[u8; 32]]) -> bool {
    let mac = keyed(secret, body);
    presented.iter().fold(false, |found, tag| mac.clone().verify_slice(tag).is_ok() | found)
}

fn keyed(secret: &Secret, body: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so the error cannot happen; an unkeyed MAC would match nothing.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(body);
    mac
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn decode(value: &str) -> Option<[u8; 32]> {
    let value = value.trim();
    let digits = match value.get(..7) {
        Some(prefix) if prefix.eq_ignore_ascii_case("sha256=") => &value[7..],
        _ => value,
    };
    let mut tag = [0u8; 32];
    hex::decode_to_slice(digits, &mut tag).ok().map(|()| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn the_signature_is_the_rfc_4231_one_over_the_raw_bytes() {
        let key = Secret::parse("Jefe").expect("a secret");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign(&key, b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn both_names_and_both_prefixes_are_read_and_a_doubled_header_is_none() {
        let key = Secret::parse("whsec_a").expect("a secret");
        let tag = sign(&key, b"{}");
        let prefixed = format!("SHA256={tag}");
        for pairs in [&[("x-nexa-signature", tag.as_str())][..], &[("x-dialnexa-signature", prefixed.as_str())][..]] {
            assert!(verifies(&key, b"{}", &presented(&headers(pairs))));
        }
        let doubled = headers(&[("x-nexa-signature", &tag), ("x-nexa-signature", &tag)]);
        assert!(presented(&doubled).is_empty());
        assert!(!verifies(&key, b"{ }", &presented(&headers(&[("x-nexa-signature", &tag)]))));
        assert!(presented(&headers(&[("x-nexa-signature", "é"), ("x-dialnexa-signature", "sha256=")])).is_empty());
    }
}
