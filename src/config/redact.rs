//! A person may write a secret into the file by mistake. The error that says so must not carry it into a log.

use std::ops::Range;

/// `text` with every value that looks like a secret written as `*`, byte for byte, so that positions stay.
pub(super) fn without_literal_secrets(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in assigned(text).chain(prefixed(text)).chain(passwords(text)) {
        for byte in &mut bytes[range] {
            if *byte != b'\n' && *byte != b'\r' {
                *byte = b'*';
            }
        }
    }
    // Every range begins and ends at a character boundary, so what is left is text.
    String::from_utf8(bytes).unwrap_or_default()
}

/// `message` without what looks like a secret: it may name a key or a value of the file, whichever a person mistook it for.
pub(super) fn message_without_secrets(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut from = 0;
    for range in prefixed(message) {
        // One prefix right after another is covered already.
        let range = range.start.max(from)..range.end.max(from);
        shown.push_str(&message[from..range.start]);
        shown.extend(std::iter::repeat_n('*', range.len()));
        from = range.end;
    }
    shown + &message[from..]
}

/// What follows `key = where the key speaks of a secret and the value is not a table that names a place.
fn assigned(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    text.match_indices('=').filter_map(|(at, _)| {
        let key = text[..at].trim_end_matches([' ', '\t', '"', '\'']);
        let key = key.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).next().unwrap_or_default();
        let speaks = ["secret", "token", "api_key", "apikey", "sealing_key", "password"].iter().any(|word| key.contains(word));
        let value = at + 1 + text[at + 1..].len() - text[at + 1..].trim_start_matches([' ', '\t']).len();
        (speaks && !text[value..].starts_with('{')).then(|| value..value_end(text, value))
    })
}

fn value_end(text: &str, from: usize) -> usize {
    let rest = &text[from..];
    for quotes in ["\"\"\"", "'''"] {
        if let Some(body) = rest.strip_prefix(quotes) {
            return body.find(quotes).map_or(text.len(), |i| from + 2 * quotes.len() + i);
        }
    }
    from + rest.find('\n').unwrap_or(rest.len())
}

/// The tail of anything that starts like one of DialNexa's secrets.
fn prefixed(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=');
    text.match_indices("whsec_").map(move |(at, prefix)| {
        let tail = at + prefix.len();
        tail..tail + text[tail..].find(|c| !is_part(c)).unwrap_or(text.len() - tail)
    })
}

/// `user:password` of a URL.
fn passwords(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    text.match_indices("://").filter_map(|(at, _)| {
        let start = at + 3;
        let rest = &text[start..];
        let authority = &rest[..rest.find(['/', '"', '\'', '?', '#', '\n', ' ']).unwrap_or(rest.len())];
        authority.rfind('@').map(|end| start..start + end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_file_is_blanked_and_every_position_stays() {
        let text = concat!(
            "api_key = \"dnx_live_abc\"\n",
            "sealing_key = { file = \"key\" }\n",
            "verify = { report_token = 'tok' }\n",
            "secret = \"\"\"line one\nline two\"\"\"\n",
            "x = \"whsec_AbC-d_e= ü\"\n",
            "probe = [\"http://me:pw@host/hook\"]\n",
            "token=ünquoted\n",
            "\u{202e}secret = 7\n",
        );
        let masked = without_literal_secrets(text);
        assert_eq!(masked.len(), text.len());
        for secret in ["dnx_live_abc", "tok'", "line one", "line two", "AbC-d_e", "me:pw", "nquoted"] {
            assert!(!masked.contains(secret), "{secret} in {masked}");
        }
        for kept in ["sealing_key = { file = \"key\" }", "whsec_*", "@host/hook", "= ü".trim_start_matches("= ")] {
            assert!(masked.contains(kept), "{kept} not in {masked}");
        }
        assert_eq!(masked.matches('\n').count(), text.matches('\n').count());
    }
}
