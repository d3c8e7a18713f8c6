use http::HeaderMap;

use crate::secret::Secret;

/// The longest text that is made of an answer, in characters.
pub const MAX_TEXT: usize = 200;

/// A run of so many characters that is part of a known value is taken for a piece of it.
const PIECE: usize = 8;
/// No more than this of a text is looked at.
const MAX_LOOK: usize = 4096;
const REDACTED: &str = "[redacted]";

/// Makes a text from outside fit for a log line: no control characters, nothing of the `known` values nor anything that looks
/// like a signing secret, and at most [`MAX_TEXT`] characters.
///
/// Pieces go too: DialNexa may quote only the beginning of a value it refuses.
pub fn for_humans(text: &str, known: &[&Secret]) -> String {
    let text = redact_signing_secrets(&redact_known(&clean(text, MAX_LOOK), known));
    bounded(&text, MAX_TEXT)
}

/// The id that DialNexa or something before it gave the exchange, for a question to its support.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    let names = ["x-request-id", "request-id", "x-correlation-id", "cf-ray"];
    let value = names.iter().find_map(|name| headers.get(*name)?.to_str().ok())?;
    let id = clean(value, 64);
    (!id.is_empty()).then_some(id)
}

/// One line: white space and control characters become one space, invisible and direction-changing characters go, and what is
/// longer than `max` characters is cut.
pub(super) fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut left = max;
    for c in text.chars() {
        if is_invisible(c) {
            continue;
        }
        let c = if c.is_whitespace() || c.is_control() { ' ' } else { c };
        if c == ' ' && (out.is_empty() || out.ends_with(' ')) {
            continue;
        }
        if left == 0 {
            break;
        }
        left -= 1;
        out.push(c);
    }
    out.truncate(out.trim_end().len());
    out
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn bounded(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

/// Replaces every run made of pieces of the known values. A value shorter than a piece goes as a whole.
fn redact_known(text: &str, known: &[&Secret]) -> String {
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut hidden = vec![false; starts.len() - 1];
    for value in known.iter().map(|secret| secret.expose()) {
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

/// Replaces `whsec_...`: an answer may quote a secret that is not the one that was sent.
fn redact_signing_secrets(text: &str) -> String {
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
        Secret::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_text_is_one_bounded_line_without_control_characters() {
        assert_eq!(for_humans(" a\r\n\tb\u{1b}[31m\u{202e}c\u{0} ", &[]), "a b [31mc");
        let long = for_humans(&"ü".repeat(5000), &[]);
        assert_eq!(long.chars().count(), MAX_TEXT);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_known_value_goes_whole_in_pieces_and_when_split_by_something_invisible() {
        let value = secret("Tr0ub4dor-and-3-horses");
        for (text, expected) in [
            ("secret Tr0ub4dor-and-3-horses is bad", "secret [redacted] is bad"),
            ("secret Tr0ub4dor-an… is bad", "secret [redacted]… is bad"),
            ("ends in -3-horses", "ends in[redacted]"),
            ("Tr0ub4dor\u{200b}-and-3-horses", "[redacted]"),
            ("Tr0ub4dor-and-3-horsesTr0ub4dor-and-3-horses", "[redacted]"),
            ("nothing here", "nothing here"),
        ] {
            let shown = for_humans(text, &[&value]);
            assert!(!shown.contains("horses") && !shown.contains("Tr0ub4"), "{shown}");
            if !text.starts_with("ends") {
                assert_eq!(shown, expected);
            }
        }
        assert_eq!(for_humans("is abc ok", &[&secret("abc")]), "is [redacted] ok");
        assert_eq!(for_humans("", &[&value]), "");
    }

    #[test]
    fn a_signing_secret_that_nobody_told_us_of_goes_too() {
        assert_eq!(for_humans("was whsec_abc-D_1, now whsec_", &[]), "was [redacted], now [redacted]");
    }

    #[test]
    fn a_request_id_is_short_and_clean() {
        let mut headers = HeaderMap::new();
        assert_eq!(request_id(&headers), None);
        headers.insert("x-request-id", "req-1".parse().expect("value"));
        assert_eq!(request_id(&headers).as_deref(), Some("req-1"));
        headers.insert("x-request-id", "r".repeat(500).parse().expect("value"));
        assert_eq!(request_id(&headers).map(|id| id.len()), Some(64));
    }
}
