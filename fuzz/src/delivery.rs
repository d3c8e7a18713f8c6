use hookturn::{
    evidence::{Verification, verify},
    secret::{Keyring, Kid, Secret, Standing, signature::SignatureProblem},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

const KEYS: [(&str, &str, Standing, &str); 4] = [
    ("gone", "whsec_gone", Standing::Retired, "{gone}"),
    ("same", "whsec_now", Standing::Retired, "{same}"),
    ("now", "whsec_now", Standing::Accepted, "{now}"),
    ("next", "whsec_next", Standing::Accepted, "{next}"),
];
const HEADERS: [&str; 2] = ["x-nexa-signature", "x-dialnexa-signature"];

/// A delivery: header lines, an empty line, the body. `{now}` in a header is the MAC of the body under that key.
///
/// What `verify` makes of it is what the definition of HMAC makes of it.
pub fn delivery(data: &[u8]) {
    let (lines, body) = super::head_and_body(data);
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().take(64) {
        let value = KEYS.iter().fold((*value).to_owned(), |value, (_, secret, _, place)| {
            if value.contains(place) { value.replace(place, &hex::encode(hmac(secret.as_bytes(), body))) } else { value }
        });
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    let keys = KEYS
        .iter()
        .map(|(kid, secret, standing, _)| (Kid::parse(kid).expect("a kid"), Secret::parse(secret).expect("a secret"), *standing));
    let ring = Keyring::new(keys.collect());
    let found = verify(&headers, body, &ring);
    let named = match found {
        Verification::Matched { kid, standing, .. } => Ok(Some((kid.to_string(), standing))),
        Verification::NoMatch => Ok(None),
        Verification::Problem(problem) => Err(problem),
    };
    assert_eq!(named, by_definition(&headers, body), "{headers:?}");
    if let Verification::Matched { header, .. } = found {
        assert!(headers.contains_key(header));
    }
    assert_eq!(verify(&headers, body, &ring), found);
}

fn by_definition(headers: &HeaderMap, body: &[u8]) -> Result<Option<(String, Standing)>, SignatureProblem> {
    let mut given = Vec::new();
    let mut malformed = false;
    for name in HEADERS {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        match values.as_slice() {
            [] => {}
            [value] => match digits(value.as_bytes()) {
                Some(mac) => given.push(mac),
                None => malformed = true,
            },
            _ => return Err(SignatureProblem::Repeated),
        }
    }
    match (given.is_empty(), malformed) {
        (true, false) => return Err(SignatureProblem::Missing),
        (true, true) => return Err(SignatureProblem::Malformed),
        _ => {}
    }
    let of = |standing| {
        let matching = |(_, secret, is, _): &&(&str, &str, Standing, &str)| {
            *is == standing && given.contains(&hmac(secret.as_bytes(), body))
        };
        KEYS.iter().find(matching).map(|(kid, ..)| ((*kid).to_owned(), standing))
    };
    Ok(of(Standing::Accepted).or_else(|| of(Standing::Retired)))
}

/// 64 hex digits, with or without `sha256=` in front.
fn digits(value: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(value).ok()?;
    let prefixed = text.len() > 7 && text.is_char_boundary(7) && text[..7].eq_ignore_ascii_case("sha256=");
    let text = if prefixed { &text[7..] } else { text };
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut mac = [0; 32];
    for (at, byte) in mac.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(mac)
}

/// RFC 2104, word by word.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}
