//! What of a request is passed on: everything that is meant for its receiver, and nothing that claims to come from here.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::secret::{
    Kid, Secret,
    signature::{HEADERS, sign},
};

/// Names the key that a delivery verified under. Whatever of this family comes in from outside is a claim, and taken out.
pub(super) const KID: HeaderName = HeaderName::from_static("x-hookturn-kid");
const OURS: &str = "x-hookturn-";

/// Takes out what is meant for one connection only (RFC 9110, 7.6.1).
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const HOP_BY_HOP: [HeaderName; 6] = [
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes out every header that says what only the gateway may say. Some frameworks cannot tell `_` from `-`.
pub(super) fn strip_claims(headers: &mut HeaderMap) {
    let is_claim = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        name.len() >= OURS.len()
            && name.iter().zip(OURS.as_bytes()).all(|(is, ours)| is == ours || (*is == b'_' && *ours == b'-'))
    };
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Says under which key it verified.
pub(super) fn name_kid(headers: &mut HeaderMap, kid: Kid) {
    // A kid is made of letters, digits, '.', '_' and '-'.
    if let Ok(value) = HeaderValue::from_str(kid.as_str()) {
        headers.insert(KID, value);
    }
}

/// Signs again, under the names and in the form that came.
pub(super) fn resign(headers: &mut HeaderMap, body: &[u8], inner: &Secret, prefixed: bool) {
    let signed = sign(inner, body);
    let text = if prefixed { signed.as_str() } else { signed.trim_start_matches("sha256=") };
    let Ok(value) = HeaderValue::from_str(text) else { return };
    for name in HEADERS {
        if headers.contains_key(name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().expect("name"), value.parse().expect("value"))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_meant_for_one_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-private"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["content-encoding", "content-type"]);
    }

    #[test]
    fn a_claim_of_a_verified_kid_is_taken_out_however_it_is_written() {
        let mut headers = map(&[
            ("x-hookturn-kid", "k_forged"),
            ("X_Hookturn_Kid", "k_forged"),
            ("x-hookturn_anything", "1"),
            ("x-hookturn", "a header of somebody else"),
            ("x-nexa-signature", "aa"),
        ]);
        strip_claims(&mut headers);
        assert_eq!(names(&headers), ["x-hookturn", "x-nexa-signature"]);
    }

    #[test]
    fn a_delivery_is_signed_again_under_the_name_and_in_the_form_that_came() {
        let inner = Secret::parse("inner").expect("secret");
        let mut headers = map(&[("x-dialnexa-signature", "aa")]);
        resign(&mut headers, b"{}", &inner, false);
        assert_eq!(names(&headers), ["x-dialnexa-signature"]);
        assert_eq!(headers["x-dialnexa-signature"], sign(&inner, b"{}").trim_start_matches("sha256="));
        resign(&mut headers, b"{}", &inner, true);
        assert_eq!(headers["x-dialnexa-signature"], sign(&inner, b"{}"));
    }
}
