use http::HeaderMap;

use crate::secret::{
    Ahead, Keyring, Kid, Standing,
    signature::{self, SignatureProblem, candidates},
};

/// What the signature of a delivery says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    Matched {
        kid: Kid,
        /// A retired key is named, and not to be accepted.
        standing: Standing,
        /// The header that the signature came in.
        header: &'static str,
        /// `sha256=` was in front of it.
        prefixed: bool,
    },
    NoMatch,
    Problem(SignatureProblem),
}

/// Which key of the keyring signed `body`, the bytes as received.
///
/// A MAC is compared in constant time, so the time taken tells nothing of how much of one was right. It does tell which of the
/// keys matched, to somebody who has a right signature: the kid, which is no secret. Retired keys, of which there are more with
/// each rotation, are tried where no accepted one matched.
pub fn verify(headers: &HeaderMap, body: &[u8], keyring: &Keyring) -> Verification {
    verify_ahead(headers, body, keyring, None)
}

/// The same, with one of the MACs made already, of this body and by this keyring.
pub fn verify_ahead(headers: &HeaderMap, body: &[u8], keyring: &Keyring, ahead: Option<Ahead>) -> Verification {
    let candidates = match candidates(headers) {
        Ok(candidates) => candidates,
        Err(problem) => return Verification::Problem(problem),
    };
    for standing in [Standing::Accepted, Standing::Retired] {
        for (kid, mac) in keyring.macs(standing, body, ahead) {
            let by = candidates.iter().find(|candidate| signature::same(&mac, &candidate.mac).into());
            if let Some(by) = by {
                if standing == Standing::Accepted {
                    keyring.matched(kid);
                }
                return Verification::Matched { kid, standing, header: by.header, prefixed: by.prefixed };
            }
        }
    }
    Verification::NoMatch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{
        Secret,
        signature::{HEADERS, sign},
    };

    fn key(kid: &str, secret: &str, standing: Standing) -> (Kid, Secret, Standing) {
        (Kid::parse(kid).expect("kid"), Secret::parse(secret).expect("secret"), standing)
    }

    fn ring() -> Keyring {
        Keyring::new(vec![
            key("old", "whsec_old", Standing::Retired),
            key("same", "whsec_now", Standing::Retired),
            key("now", "whsec_now", Standing::Accepted),
            key("next", "whsec_next", Standing::Accepted),
        ])
    }

    fn signed(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value"))).collect()
    }

    fn by(secret: &str, body: &[u8]) -> String {
        sign(&Secret::parse(secret).expect("secret"), body)
    }

    fn kid(found: Verification) -> Option<(String, Standing)> {
        match found {
            Verification::Matched { kid, standing, .. } => Some((kid.to_string(), standing)),
            _ => None,
        }
    }

    #[test]
    fn each_key_is_found_and_an_accepted_one_is_preferred() {
        let body = b"{}";
        let find = |secret: &str| kid(verify(&signed(&[(HEADERS[0], by(secret, body))]), body, &ring()));
        assert_eq!(find("whsec_next"), Some(("next".to_owned(), Standing::Accepted)));
        assert_eq!(find("whsec_now"), Some(("now".to_owned(), Standing::Accepted)));
        assert_eq!(find("whsec_old"), Some(("old".to_owned(), Standing::Retired)));
        assert_eq!(find("whsec_other"), None);
    }

    #[test]
    fn with_both_headers_either_may_match_and_it_is_named() {
        let body = b"\xff\x00 not json";
        let bare = by("whsec_next", body).trim_start_matches("sha256=").to_owned();
        let headers = signed(&[(HEADERS[0], by("whsec_other", body)), (HEADERS[1], bare)]);
        let next = Kid::parse("next").expect("kid");
        let found = Verification::Matched { kid: next, standing: Standing::Accepted, header: HEADERS[1], prefixed: false };
        assert_eq!(verify(&headers, body, &ring()), found);
        let headers = signed(&[(HEADERS[0], by("whsec_old", body)), (HEADERS[1], by("whsec_next", body))]);
        assert_eq!(kid(verify(&headers, body, &ring())), Some(("next".to_owned(), Standing::Accepted)));
    }

    #[test]
    fn one_changed_byte_or_an_empty_keyring_matches_nothing() {
        let headers = signed(&[(HEADERS[0], by("whsec_now", b"{}"))]);
        assert_eq!(verify(&headers, b"{ }", &ring()), Verification::NoMatch);
        assert_eq!(verify(&headers, b"{}", &Keyring::new(Vec::new())), Verification::NoMatch);
        assert_eq!(verify(&HeaderMap::new(), b"{}", &ring()), Verification::Problem(SignatureProblem::Missing));
    }
}
