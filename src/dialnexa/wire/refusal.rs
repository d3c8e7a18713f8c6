use http::StatusCode;
use serde_json::Value;

use super::{Body, Reply, envelope, rate, text};
use crate::{dialnexa::ProviderError, secret::Secret};

/// The JSON of a good answer to anything but a PATCH of a secret; else what went wrong.
///
/// `id` is the webhook that was asked for; without one a 404 says nothing about a webhook. A `statusCode` inside a 200 counts.
pub fn accept(reply: &Reply, id: Option<&str>, known: &[&Secret]) -> Result<Value, ProviderError> {
    if !reply.status.is_success() {
        return Err(refusal(reply, reply.status.as_u16(), id, known));
    }
    let value = reply
        .json()
        .map_err(|why| ProviderError::Nonsense(text::for_humans(&format!("{}: {why}", reply.status.as_u16()), known)))?;
    match envelope::inner_status(&value) {
        Some(inner) if !(200..300).contains(&inner) => Err(refusal(reply, inner, id, known)),
        _ => Ok(value),
    }
}

fn refusal(reply: &Reply, status: u16, id: Option<&str>, known: &[&Secret]) -> ProviderError {
    let message = text::for_humans(&said(reply).unwrap_or_else(|| reason(status).to_owned()), known);
    match (status, id) {
        (401 | 403, _) => ProviderError::ApiKeyRefused { status, message },
        (404 | 410, Some(id)) => ProviderError::NotFound { id: id.to_owned(), message },
        (429, _) => ProviderError::Limited { wait: rate::wait(&reply.headers), message },
        (408 | 425 | 500.., _) => ProviderError::Unreachable(text::for_humans(&format!("{status}: {message}"), known)),
        (400..500, _) => ProviderError::Refused { status, message },
        (300..400, _) => ProviderError::Nonsense(format!("{status}: a redirect, which is not followed; is the base URL right?")),
        _ => ProviderError::Nonsense(text::for_humans(&format!("{status}: {message}"), known)),
    }
}

/// DialNexa's own words in an answer: `{statusCode, message: text or list, error}`, in any envelope. Not redacted yet.
pub(super) fn said(reply: &Reply) -> Option<String> {
    if !matches!(reply.body, Body::Whole(_)) {
        return None;
    }
    let value = reply.json().ok()?;
    let layers = envelope::layers(&value);
    let found = ["message", "error"].iter().find_map(|key| layers.iter().rev().find_map(|layer| words(layer.get(*key)?, 3)));
    found.map(|words| text::clean(&words, 1024))
}

/// The texts in a message, whatever its form, but nothing that stands under a key with `secret` in its name.
fn words(value: &Value, depth: usize) -> Option<String> {
    let joined = |parts: Vec<String>| (!parts.is_empty()).then(|| parts.join("; "));
    match value {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        Value::Array(items) if depth > 0 => joined(items.iter().filter_map(|item| words(item, depth - 1)).collect()),
        Value::Object(object) if depth > 0 => {
            let open = object.iter().filter(|(key, _)| !key.to_ascii_lowercase().contains("secret"));
            joined(open.filter_map(|(_, item)| words(item, depth - 1)).collect())
        }
        _ => None,
    }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        let body = Body::Whole(Bytes::copy_from_slice(body.as_bytes()));
        Reply { status: StatusCode::from_u16(status).expect("status"), headers: HeaderMap::new(), body }
    }

    fn message(body: &str) -> Option<String> {
        said(&reply(400, body))
    }

    #[test]
    fn a_message_is_text_or_a_list_or_only_an_error() {
        assert_eq!(message(r#"{"statusCode":400,"message":"bad url","error":"Bad Request"}"#).as_deref(), Some("bad url"));
        assert_eq!(message(r#"{"message":["a must be b","c"]}"#).as_deref(), Some("a must be b; c"));
        assert_eq!(message(r#"{"message":"","error":"Bad Request"}"#).as_deref(), Some("Bad Request"));
        assert_eq!(message(r#"{"error":{"code":"X1","message":"no"}}"#).as_deref(), Some("X1; no"));
        assert_eq!(message(r#"{"data":{"message":"inner"}}"#).as_deref(), Some("inner"));
        for none in ["{}", "[]", "<html>", "", r#"{"message":7}"#] {
            assert_eq!(message(none), None, "{none}");
        }
    }

    #[test]
    fn nothing_under_a_key_named_secret_is_quoted() {
        let body = r#"{"message":[{"property":"secret","secret":"old-one","Webhook_Secret":"x","constraint":"too short"}]}"#;
        assert_eq!(message(body).as_deref(), Some("too short; secret"));
    }

    #[test]
    fn each_status_has_one_meaning_also_inside_a_200() {
        let kind = |status: u16, body: &str| match accept(&reply(status, body), Some("whk_1"), &[]) {
            Ok(_) => "ok",
            Err(ProviderError::ApiKeyRefused { .. }) => "key",
            Err(ProviderError::NotFound { .. }) => "gone",
            Err(ProviderError::Refused { .. }) => "refused",
            Err(ProviderError::Limited { .. }) => "limited",
            Err(ProviderError::Unreachable(_)) => "unreachable",
            Err(ProviderError::Nonsense(_)) => "nonsense",
        };
        for (status, expected) in [
            (401, "key"),
            (403, "key"),
            (404, "gone"),
            (400, "refused"),
            (409, "refused"),
            (422, "refused"),
            (429, "limited"),
            (408, "unreachable"),
            (500, "unreachable"),
            (503, "unreachable"),
            (301, "nonsense"),
            (307, "nonsense"),
        ] {
            assert_eq!(kind(status, "{}"), expected, "{status}");
            assert_eq!(kind(200, &format!(r#"{{"statusCode":{status}}}"#)), expected, "{status} inside a 200");
        }
        assert_eq!(kind(200, r#"{"statusCode":201,"data":{}}"#), "ok");
        assert_eq!(kind(200, "<html>"), "nonsense");
        assert_eq!(kind(200, ""), "nonsense");
        assert!(matches!(accept(&reply(404, "{}"), None, &[]), Err(ProviderError::Refused { status: 404, .. })));
    }

    #[test]
    fn a_limit_says_how_long() {
        let mut limited = reply(429, r#"{"message":"slow down"}"#);
        limited.headers.insert("retry-after", "9".parse().expect("value"));
        let error = accept(&limited, None, &[]).expect_err("limited");
        assert!(matches!(error, ProviderError::Limited { wait: Some(wait), .. } if wait == Duration::from_secs(9)));
    }

    #[test]
    fn an_echoed_key_does_not_reach_the_message() {
        let key = Secret::parse("key_1:hunter2hunter2").unwrap_or_else(|e| panic!("{e}"));
        let error = accept(&reply(401, r#"{"message":"bad key key_1:hunter2hunter2"}"#), None, &[&key]).expect_err("refused");
        assert_eq!(error.to_string(), "DialNexa refuses the API key (401): bad key [redacted]");
    }
}
