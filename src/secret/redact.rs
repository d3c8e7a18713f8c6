//! Texts from outside (an answer of DialNexa, the last words of a program) may quote a secret. They are shown without it.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

use super::Secret;

/// A run of so many characters that is part of a known value is taken for a piece of it.
const PIECE: usize = 8;
const REDACTED: &str = "[redacted]";

/// `text` without anything of the `known` values, plain or encoded, and without anything that looks like a signing secret.
///
/// Pieces go too: who refuses a value may quote only its beginning.
pub fn redact(text: &str, known: &[&Secret]) -> String {
    without_signing_secrets(&without_known(text, known))
}

/// Replaces every run made of pieces of the known values. A value shorter than a piece goes as a whole.
fn without_known(text: &str, known: &[&Secret]) -> String {
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut hidden = vec![false; starts.len() - 1];
    for value in known.iter().flat_map(|secret| forms(secret)) {
        let width = value.chars().count().min(PIECE);
        for at in 0..(hidden.len() + 1).saturating_sub(width) {
            if value.contains(&text[starts[at]..starts[at + width]]) {
                hidden[at..at + width].fill(true);
            }
        }
    }
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        match hidden[at] {
            false => out.push(c),
            true if at == 0 || !hidden[at - 1] => out.push_str(REDACTED),
            true => {}
        }
    }
    out
}

/// The value as it may be written: plain, hex, percent-encoded, and base64 at each of the three places it may have in a longer
/// text. What is too short to be recognised in an encoding stays plain only.
fn forms(secret: &Secret) -> Vec<Zeroizing<String>> {
    let value = secret.expose();
    let mut forms = vec![Zeroizing::new(value.to_owned())];
    if value.len() < PIECE {
        return forms;
    }
    forms.push(Zeroizing::new(hex::encode(value)));
    forms.push(Zeroizing::new(hex::encode_upper(value)));
    let percent = |b: u8| match b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    forms.push(Zeroizing::new(value.bytes().map(percent).collect()));
    for before in 0..3usize {
        let mut padded = Zeroizing::new(vec![0u8; before]);
        padded.extend_from_slice(value.as_bytes());
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(engine.encode(&*padded));
            // The characters at both ends depend on the neighbours.
            let inner = encoded.get((before * 4).div_ceil(3)..encoded.len() - 1).unwrap_or_default();
            forms.push(Zeroizing::new(inner.to_owned()));
        }
    }
    forms
}

/// Replaces `whsec_...`: a text may quote a secret that nobody told us of.
fn without_signing_secrets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("whsec_") {
        out.push_str(&rest[..at]);
        out.push_str(REDACTED);
        let tail = &rest[at..];
        let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=' | '.')));
        rest = &tail[end.unwrap_or(tail.len())..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::parse(text).expect("a secret")
    }

    #[test]
    fn a_known_value_goes_whole_and_in_pieces() {
        let value = secret("Tr0ub4dor-and-3-horses");
        for (text, expected) in [
            ("secret Tr0ub4dor-and-3-horses is bad", "secret [redacted] is bad"),
            ("secret Tr0ub4dor-an… is bad", "secret [redacted]… is bad"),
            ("ends in -3-horses", "ends in [redacted]"),
            ("Tr0ub4dor-and-3-horsesTr0ub4dor-and-3-horses", "[redacted]"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(redact(text, &[&value]), expected);
        }
        assert_eq!(redact("is abc ok", &[&secret("abc")]), "is [redacted] ok");
        assert_eq!(redact("", &[&value]), "");
    }

    #[test]
    fn a_known_value_goes_in_the_usual_encodings() {
        let value = secret("Tr0ub4dor/and?3-horses~");
        let base64 = |before: &str| STANDARD_NO_PAD.encode(format!("{before}Tr0ub4dor/and?3-horses~ and more"));
        let url = URL_SAFE_NO_PAD.encode("key:Tr0ub4dor/and?3-horses~");
        for encoded in [
            hex::encode("Tr0ub4dor/and?3-horses~"),
            hex::encode_upper("Tr0ub4dor/and?3-horses~"),
            "Tr0ub4dor%2Fand%3F3-horses~".to_owned(),
            base64(""),
            base64("a"),
            base64("ab"),
            base64("abc"),
            url,
        ] {
            let shown = redact(&format!("it was {encoded}!"), &[&value]);
            let middle = &encoded[10..20];
            assert!(shown.contains(REDACTED) && !shown.contains(middle), "{encoded}: {shown}");
        }
    }

    #[test]
    fn a_signing_secret_that_nobody_told_us_of_goes_too() {
        assert_eq!(redact("was whsec_abc-D_1, now whsec_", &[]), "was [redacted], now [redacted]");
    }
}
