use http::HeaderMap;

use crate::secret::{Secret, redact};

/// The longest text that is made of an answer, in characters.
pub const MAX_TEXT: usize = 200;

/// No more than this of a text is looked at.
const MAX_LOOK: usize = 4096;

/// Makes a text from outside fit for a log line: no control characters, nothing of the `known` values nor anything that looks
/// like a signing secret ([`redact`]), and at most [`MAX_TEXT`] characters.
pub fn for_humans(text: &str, known: &[&Secret]) -> String {
    bounded(&redact(&clean(text, MAX_LOOK), known), MAX_TEXT)
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
    fn a_known_value_goes_also_where_it_is_split_by_something_invisible() {
        let value = secret("Tr0ub4dor-and-3-horses");
        assert_eq!(for_humans("Tr0ub4dor\u{200b}-and-3-horses", &[&value]), "[redacted]");
        assert_eq!(for_humans("was whsec_abc", &[&value]), "was [redacted]");
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
