//! Whether a delivery carries a signature under a key of its webhook. Pure.
//!
//! Only the raw body is tried: the form over a re-serialised inner `payload` that one receiver in the wild accepts is not
//! canonical, so a match under it would prove little.

use http::{HeaderMap, header::CONTENT_ENCODING};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Reason;
use crate::secret::{
    Keyring, Kid, Standing,
    signature::{self, SignatureProblem},
};

/// What came of checking one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    Matched(Match),
    /// There is a signature, and no key of the webhook makes it.
    NoMatch,
    /// There is no signature that could be checked.
    Problem(SignatureProblem),
}

/// The key that made a signature, and how the signature was spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    pub kid: Kid,
    pub standing: Standing,
    /// One of [`signature::HEADERS`].
    pub header: &'static str,
    /// Whether `sha256=` stood in front.
    pub prefixed: bool,
}

/// Tries every key, the retired ones too, against every signature of the delivery, in constant time and without an early
/// exit. Where an accepted and a retired key both match (one secret under two kids), the accepted one is named.
///
/// Costs one HMAC of the body per key. `body` is what came off the wire after transfer decoding and nothing else.
pub fn verify(headers: &HeaderMap, body: &[u8], keyring: &Keyring) -> Verification {
    let candidates = match signature::candidates(headers) {
        Ok(candidates) => candidates,
        Err(problem) => return Verification::Problem(problem),
    };
    let mut best: Option<Match> = None;
    for (kid, secret, standing) in keyring.iter() {
        let mac = signature::mac(secret, body);
        for candidate in &candidates {
            let matches = bool::from(mac.ct_eq(&candidate.mac));
            let better = best.is_none_or(|best| best.standing == Standing::Retired && standing == Standing::Accepted);
            if matches && better {
                best = Some(Match { kid, standing, header: candidate.header, prefixed: candidate.prefixed });
            }
        }
    }
    best.map_or(Verification::NoMatch, Verification::Matched)
}

/// The digest that a delivery is recognised by when it comes again, through whichever door.
pub fn body_sha256(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

impl Verification {
    /// Why this is no evidence; `None` for a match. A mismatch under a `Content-Encoding` has a reason of its own, because
    /// then something on the way may have compressed what DialNexa had signed.
    pub fn reason(&self, headers: &HeaderMap) -> Option<Reason> {
        match self {
            Verification::Matched(_) => None,
            Verification::NoMatch if is_encoded(headers) => Some(Reason::ContentEncoding),
            Verification::NoMatch => Some(Reason::Mismatch),
            Verification::Problem(SignatureProblem::Missing) => Some(Reason::NoSignature),
            Verification::Problem(SignatureProblem::Malformed) => Some(Reason::Malformed),
            Verification::Problem(SignatureProblem::Repeated) => Some(Reason::Repeated),
        }
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::secret::Secret;

    const BODY: &[u8] = br#"{"event":"call.completed"}"#;

    fn secret(text: &str) -> Secret {
        Secret::parse(text).expect("a secret")
    }

    fn kid(text: &str) -> Kid {
        Kid::parse(text).expect("a kid")
    }

    fn keyring(keys: &[(&str, &str, Standing)]) -> Keyring {
        Keyring::new(keys.iter().map(|(id, text, standing)| (kid(id), secret(text), *standing)).collect())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    #[test]
    fn a_delivery_names_its_key_its_standing_and_the_spelling_of_its_signature() {
        let ring = keyring(&[("old", "whsec_old", Standing::Retired), ("new", "whsec_new", Standing::Accepted)]);
        let bare = hex::encode(signature::mac(&secret("whsec_old"), BODY));
        let found = verify(&headers(&[("x-dialnexa-signature", &bare)]), BODY, &ring);
        let expected = Match { kid: kid("old"), standing: Standing::Retired, header: "x-dialnexa-signature", prefixed: false };
        assert_eq!(found, Verification::Matched(expected));
        assert_eq!(found.reason(&HeaderMap::new()), None);
    }

    #[test]
    fn an_accepted_key_is_named_rather_than_a_retired_one_with_the_same_secret() {
        let keys = [("gone", "same", Standing::Retired), ("live", "same", Standing::Accepted), ("x", "same", Standing::Retired)];
        let signed = headers(&[("x-nexa-signature", &signature::sign(&secret("same"), BODY))]);
        let Verification::Matched(found) = verify(&signed, BODY, &keyring(&keys)) else { panic!("no match") };
        assert_eq!((found.kid, found.standing), (kid("live"), Standing::Accepted));
    }

    #[test]
    fn one_right_signature_among_two_is_enough() {
        let ring = keyring(&[("a", "one", Standing::Accepted)]);
        let (right, wrong) = (signature::sign(&secret("one"), BODY), signature::sign(&secret("two"), BODY));
        let both = headers(&[("x-nexa-signature", &wrong), ("x-dialnexa-signature", &right)]);
        let Verification::Matched(found) = verify(&both, BODY, &ring) else { panic!("no match") };
        assert_eq!((found.header, found.prefixed), ("x-dialnexa-signature", true));
    }

    #[test]
    fn a_changed_byte_matches_nothing_and_a_content_encoding_is_a_reason_of_its_own() {
        let ring = keyring(&[("a", "one", Standing::Accepted)]);
        let sign = signature::sign(&secret("one"), BODY);
        let plain = headers(&[("x-nexa-signature", &sign), ("content-encoding", "identity")]);
        let zipped = headers(&[("x-nexa-signature", &sign), ("content-encoding", "gzip")]);
        let found = verify(&plain, b"{}", &ring);
        assert_eq!(found, Verification::NoMatch);
        assert_eq!(found.reason(&plain), Some(Reason::Mismatch));
        assert_eq!(found.reason(&zipped), Some(Reason::ContentEncoding));
        assert!(matches!(verify(&zipped, BODY, &ring), Verification::Matched(_)));
    }

    #[test]
    fn without_one_usable_signature_the_reason_is_named() {
        let ring = keyring(&[("a", "one", Standing::Accepted)]);
        let sign = signature::sign(&secret("one"), BODY);
        for (pairs, reason) in [
            (&[][..], Reason::NoSignature),
            (&[("x-nexa-signature", "sha256=zz")][..], Reason::Malformed),
            (&[("x-nexa-signature", sign.as_str()), ("x-nexa-signature", sign.as_str())][..], Reason::Repeated),
        ] {
            let map = headers(pairs);
            assert_eq!(verify(&map, BODY, &ring).reason(&map), Some(reason));
        }
        let signed = headers(&[("x-nexa-signature", &sign)]);
        assert_eq!(verify(&signed, BODY, &Keyring::new(Vec::new())), Verification::NoMatch);
    }
}
