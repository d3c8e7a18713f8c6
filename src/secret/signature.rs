//! The signature of a delivery: `x-nexa-signature: sha256=<hex HMAC-SHA256(raw body)>`.
//!
//! DialNexa's pages disagree on the header's name and on the prefix, so both names and both forms are read; whichever form
//! comes is tried, and none is preferred.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::Secret;

/// The header names that DialNexa's pages print. Case does not matter on the wire.
pub const HEADERS: [&str; 2] = ["x-nexa-signature", "x-dialnexa-signature"];

/// One signature as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub header: &'static str,
    /// It came with `sha256=` in front.
    pub prefixed: bool,
    pub mac: [u8; 32],
}

/// Why a delivery has no usable signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SignatureProblem {
    #[error("no signature header")]
    Missing,
    #[error("the signature is not 32 bytes in hex")]
    Malformed,
    #[error("one signature header came more than once")]
    Repeated,
}

/// HMAC-SHA256 of `body` under the UTF-8 bytes of the secret.
pub fn mac(secret: &Secret, body: &[u8]) -> [u8; 32] {
    let mut mac = keyed(secret);
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// Two MACs from their keyed states, a block of each in turn. The SHA instructions of one message wait for each other, and those of
/// the other go in between.
pub fn two_macs((mut one, body): (Hmac<Sha256>, &[u8]), (mut other, other_body): (Hmac<Sha256>, &[u8])) -> [[u8; 32]; 2] {
    // Of a known length, so that a block goes to the instructions without a detour.
    let ((blocks, _), (other_blocks, _)) = (body.as_chunks::<64>(), other_body.as_chunks::<64>());
    for (block, other_block) in blocks.iter().zip(other_blocks) {
        one.update(block);
        other.update(other_block);
    }
    let common = blocks.len().min(other_blocks.len()) * 64;
    one.update(&body[common..]);
    other.update(&other_body[common..]);
    [one.finalize().into_bytes().into(), other.finalize().into_bytes().into()]
}

/// Whether two MACs are the same, in constant time.
pub fn same(one: &[u8; 32], other: &[u8; 32]) -> Choice {
    let words = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
    let difference = words.fold(0, |found, (one, other)| found | (u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other)));
    difference.ct_eq(&0)
}

/// The keyed state that every MAC under this secret starts from.
pub fn keyed(secret: &Secret) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose().as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"))
}

/// The header value that DialNexa would send: `sha256=<hex>`.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(mac(secret, body)))
}

/// Every signature of a delivery.
///
/// # Errors
/// [`SignatureProblem`] where there is none, one header came twice, or none of them is well-formed.
pub fn candidates(headers: &HeaderMap) -> Result<Vec<Candidate>, SignatureProblem> {
    let mut found = Vec::with_capacity(2);
    let mut present = false;
    for header in HEADERS {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(SignatureProblem::Repeated);
        }
        present = true;
        if let Some((prefixed, mac)) = parse(value.as_bytes()) {
            found.push(Candidate { header, prefixed, mac });
        }
    }
    match (present, found.is_empty()) {
        (false, _) => Err(SignatureProblem::Missing),
        (true, true) => Err(SignatureProblem::Malformed),
        (true, false) => Ok(found),
    }
}

fn parse(value: &[u8]) -> Option<(bool, [u8; 32])> {
    const PREFIX: &[u8] = b"sha256=";
    let prefixed = value.len() > PREFIX.len() && value[..PREFIX.len()].eq_ignore_ascii_case(PREFIX);
    let digits = if prefixed { &value[PREFIX.len()..] } else { value };
    let mut mac = [0u8; 32];
    hex::decode_to_slice(digits, &mut mac).ok()?;
    Some((prefixed, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("header value"));
        }
        map
    }

    #[test]
    fn the_mac_is_that_of_rfc_4231_case_2() {
        let secret = Secret::parse("Jefe").expect("secret");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(mac(&secret, b"what do ya want for nothing?")), expected);
    }

    #[test]
    fn two_macs_at_once_are_those_of_each_alone() {
        let (one, other) = (Secret::parse("one").expect("secret"), Secret::parse("other").expect("secret"));
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at * 7) as u8).collect();
        let lengths = [0, 1, 63, 64, 65, 128, 200, 1000];
        for (body, other_body) in lengths.iter().flat_map(|a| lengths.iter().map(move |b| (*a, *b))) {
            let (body, other_body) = (&bytes[..body], &bytes[1000 - other_body..]);
            let found = two_macs((keyed(&one), body), (keyed(&other), other_body));
            assert_eq!(found, [mac(&one, body), mac(&other, other_body)], "{} and {}", body.len(), other_body.len());
        }
    }

    #[test]
    fn macs_are_the_same_in_every_byte_or_not_at_all() {
        let one: [u8; 32] = std::array::from_fn(|at| at as u8);
        assert!(bool::from(same(&one, &one)));
        for at in 0..32 {
            let mut other = one;
            other[at] ^= 0x80;
            assert!(!bool::from(same(&one, &other)), "{at}");
        }
    }

    #[test]
    fn both_names_with_and_without_prefix_in_any_case_are_read() {
        let hex = "AB".repeat(32);
        let bare = headers(&[("x-dialnexa-signature", &hex)]);
        assert_eq!(candidates(&bare), Ok(vec![Candidate { header: HEADERS[1], prefixed: false, mac: [0xab; 32] }]));
        let both = headers(&[
            ("X-Nexa-Signature".to_ascii_lowercase().leak(), &format!("SHA256={hex}")),
            ("x-dialnexa-signature", &hex),
        ]);
        assert_eq!(candidates(&both).map(|c| c.len()), Ok(2));
    }

    #[test]
    fn a_missing_a_repeated_and_a_malformed_signature_are_told_apart() {
        let hex = "ab".repeat(32);
        assert_eq!(candidates(&headers(&[])), Err(SignatureProblem::Missing));
        assert_eq!(
            candidates(&headers(&[("x-nexa-signature", &hex), ("x-nexa-signature", &hex)])),
            Err(SignatureProblem::Repeated)
        );
        for bad in ["", "sha256=", "sha256=zz", &hex[2..], &format!("{hex}00"), &format!("sha512={hex}")] {
            assert_eq!(candidates(&headers(&[("x-nexa-signature", bad)])), Err(SignatureProblem::Malformed), "{bad}");
        }
    }
}
