//! What DialNexa's answers mean. Pure: status, headers and body in, meaning out.
//!
//! Its documents show five envelopes, four list shapes and two spellings of most fields; all of them are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use serde_json::Value;

use super::{ProviderError, Webhook};
use crate::{rotation::PatchAnswer, secret::Secret};

/// Nobody is asked to wait longer than this, whatever a header says.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The webhook in an answer: `{message,webhook}`, bare, `{statusCode,data}`, `{data}` or `{data:{webhook}}`.
pub fn webhook(body: &Value) -> Option<Webhook> {
    let inner = unwrap(body);
    let object = inner.as_object()?;
    let id = object.get("id")?.as_str()?.to_owned();
    let text = |names: [&str; 2]| names.iter().find_map(|name| object.get(*name)?.as_str()).map(str::to_owned);
    Some(Webhook {
        id,
        url: text(["url", "endpoint"]),
        events: strings(object.get("events")),
        is_active: ["is_active", "isActive"].iter().find_map(|name| object.get(*name)?.as_bool()),
        created_at: text(["created_at", "createdAt"]),
    })
}

fn unwrap(body: &Value) -> &Value {
    let mut inner = body;
    for name in ["data", "webhook", "data"] {
        match inner.get(name) {
            Some(next) if next.is_object() => inner = next,
            _ => {}
        }
    }
    inner
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// One page of a list: `{webhooks}`, `{data:[..]}`, `{data:{data:[..]}}`, `{data:{webhooks}}` or a bare array.
pub fn page(body: &Value) -> Option<Vec<Webhook>> {
    let mut inner = body;
    for _ in 0..3 {
        if let Some(items) = inner.as_array() {
            return Some(items.iter().filter_map(webhook).collect());
        }
        inner = inner.get("webhooks").or_else(|| inner.get("data"))?;
    }
    inner.as_array().map(|items| items.iter().filter_map(webhook).collect())
}

/// The provider's own words, fit for a log line: bounded, without control characters, and without `hidden` values.
pub fn message(body: &Value, hidden: &[&Secret]) -> String {
    let said = match body.get("message").or_else(|| body.get("error")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        _ => String::new(),
    };
    plain(&said, hidden)
}

/// Makes a text from outside fit for a line of ours.
pub fn plain(text: &str, hidden: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in hidden {
        text = text.replace(secret.expose(), "[hidden]");
    }
    // A server that echoes part of a secret does so in one word: no word that looks like one is kept.
    let words = text.split_whitespace().map(|word| if word.contains("whsec_") { "[hidden]" } else { word });
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// How long the answer asks to wait: `Retry-After` in seconds or as a date, else `X-RateLimit-Reset` as an epoch or a delta.
pub fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let epoch_now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let from_number = |seconds: f64| {
        if !seconds.is_finite() || seconds < 0.0 {
            return None;
        }
        // Reset is an epoch in one document and a delta in another; no delta reaches a hundred million seconds.
        let seconds = if seconds > 1e11 { seconds / 1000.0 } else { seconds };
        let delta = if seconds > 1e8 { (seconds - epoch_now.as_secs_f64()).max(0.0) } else { seconds };
        Some(Duration::from_secs_f64(delta.min(LONGEST_WAIT.as_secs_f64())))
    };
    let from_date = |text: &str| {
        let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        from_number((at.timestamp() as f64 - epoch_now.as_secs_f64()).max(0.0))
    };
    if let Some(after) = text("retry-after") {
        return after.parse().ok().and_then(from_number).or_else(|| from_date(after));
    }
    text("x-ratelimit-reset")?.parse().ok().and_then(from_number)
}

/// What an answer to the PATCH of a secret means.
///
/// Only a clear 200 with a body about this webhook is *applied*; only a clear refusal is *refused*; the rest is *ambiguous*:
/// it may have been applied, or may be yet.
pub fn classify(id: &str, status: u16, body: Option<&Value>, wait: Option<Duration>) -> PatchAnswer {
    let wait = wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let ambiguous = PatchAnswer::Ambiguous { wait };
    match status {
        204 => PatchAnswer::Applied,
        200..=299 => {
            let Some(body) = body else { return ambiguous };
            if let Some(inner) = body.get("statusCode").and_then(Value::as_u64).filter(|inner| *inner >= 300) {
                return u16::try_from(inner).map_or(ambiguous, |inner| classify(id, inner, Some(body), None));
            }
            if !body.is_object() || body.get("success") == Some(&Value::Bool(false)) {
                return ambiguous;
            }
            match webhook(body) {
                Some(webhook) if webhook.id != id => ambiguous,
                _ => PatchAnswer::Applied,
            }
        }
        400 | 422 => PatchAnswer::ValueRefused,
        401 | 403 => PatchAnswer::ApiKeyRefused,
        404 | 410 => PatchAnswer::WebhookGone,
        429 => PatchAnswer::Limited { wait },
        _ => ambiguous,
    }
}

/// What an unsuccessful answer to any other request means.
pub fn refusal(id: &str, status: u16, body: &Value, wait: Option<Duration>, hidden: &[&Secret]) -> ProviderError {
    let message = message(body, hidden);
    match status {
        401 | 403 => ProviderError::ApiKeyRefused { status, message },
        404 => ProviderError::NotFound { id: id.to_owned(), message },
        429 => ProviderError::Limited { wait, message },
        500..=599 => ProviderError::Unreachable(format!("it answers {status} {message}").trim_end().to_owned()),
        _ => ProviderError::Refused { status, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_documented_envelope_holds_the_webhook() {
        let bare =
            json!({"id": "whk_1", "url": "https://a/b", "events": ["call.completed"], "is_active": true, "secret": "********"});
        for body in [
            bare.clone(),
            json!({"message": "ok", "webhook": bare}),
            json!({"statusCode": 200, "data": bare}),
            json!({"data": bare}),
            json!({"data": {"webhook": bare}}),
        ] {
            let webhook = webhook(&body).expect("a webhook");
            assert_eq!((webhook.id.as_str(), webhook.is_active, webhook.events.len()), ("whk_1", Some(true), 1), "{body}");
        }
        assert_eq!(webhook(&json!({"id": "a", "createdAt": "x"})).and_then(|w| w.created_at).as_deref(), Some("x"));
    }

    #[test]
    fn every_documented_list_shape_is_read() {
        let items = json!([{"id": "a"}, {"id": "b"}]);
        for body in [
            items.clone(),
            json!({"webhooks": items, "page": 1, "limit": 10, "total": 2}),
            json!({"data": items, "meta": {"page": 1}}),
            json!({"statusCode": 200, "data": {"data": items, "meta": {}}}),
            json!({"data": {"webhooks": items}}),
        ] {
            assert_eq!(page(&body).map(|items| items.len()), Some(2), "{body}");
        }
        assert!(page(&json!({"message": "hello"})).is_none());
    }

    #[test]
    fn reset_is_read_as_a_delta_or_an_epoch_and_retry_after_comes_first() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v)))
                .collect::<HeaderMap>()
        };
        let secs = |pairs| wait(&headers(pairs), now).map(|wait| wait.as_secs());
        assert_eq!(secs(&[("x-ratelimit-reset", "60")]), Some(60));
        assert_eq!(secs(&[("x-ratelimit-reset", "1790000030")]), Some(30));
        assert_eq!(secs(&[("x-ratelimit-reset", "60"), ("retry-after", "7")]), Some(7));
        assert_eq!(secs(&[("retry-after", "999999")]), Some(3600));
        assert_eq!(secs(&[("retry-after", "soon")]), None);
        assert_eq!(secs(&[]), None);
    }

    #[test]
    fn only_a_clear_answer_is_applied_or_refused() {
        let ours = json!({"message": "updated", "webhook": {"id": "whk_1"}});
        let ambiguous = PatchAnswer::Ambiguous { wait: 0 };
        for (status, body, expected) in [
            (200, Some(ours.clone()), PatchAnswer::Applied),
            (200, Some(json!({"message": "success"})), PatchAnswer::Applied),
            (204, None, PatchAnswer::Applied),
            (200, None, ambiguous),
            (200, Some(json!("<html>")), ambiguous),
            (200, Some(json!({"id": "whk_other"})), ambiguous),
            (200, Some(json!({"statusCode": 400, "message": "bad"})), PatchAnswer::ValueRefused),
            (202, Some(json!({"success": false})), ambiguous),
            (307, None, ambiguous),
            (400, Some(json!({"message": ["x"]})), PatchAnswer::ValueRefused),
            (403, None, PatchAnswer::ApiKeyRefused),
            (404, None, PatchAnswer::WebhookGone),
            (408, None, ambiguous),
            (409, None, ambiguous),
            (429, None, PatchAnswer::Limited { wait: 0 }),
            (500, Some(ours), ambiguous),
            (503, None, ambiguous),
        ] {
            assert_eq!(classify("whk_1", status, body.as_ref(), None), expected, "{status} {body:?}");
        }
    }

    #[test]
    fn a_message_never_carries_a_secret() {
        let key = Secret::parse("key_1:topsecret").expect("secret");
        let body = json!({"message": ["bad key key_1:topsecret", "secret whsec_abcdef is too\u{7} short"]});
        assert_eq!(message(&body, &[&key]), "bad key [hidden]; secret [hidden] is too short");
    }
}
