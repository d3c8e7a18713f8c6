use std::time::Duration;

use serde_json::Value;

use super::{Body, Reply, envelope, rate, refusal, text};
use crate::{
    dialnexa::PatchReport,
    rotation::{Millis, PatchAnswer},
    secret::Secret,
};

/// What an answer to the PATCH of a secret means, with one line for a person.
///
/// | answer | meaning | why |
/// |---|---|---|
/// | 200, 201, 203 with a JSON object that names our id or none | applied | a hint; only a delivery proves it |
/// | 204 | applied | it says "done" and has no body by definition |
/// | the same with `success: false`, an `error`, or another webhook's id | ambiguous | it contradicts itself |
/// | 2xx, empty, cut off, or not a JSON object | ambiguous | something between may have answered |
/// | 202, 205, 206 and other 2xx | ambiguous | not done yet, or not an answer to this |
/// | `statusCode` inside a 2xx | as if it were the status | documented envelope |
/// | 400, 422 | value refused | |
/// | 401, 403 | API key refused | |
/// | 404, 410 | webhook gone | |
/// | 429 | limited | waits `Retry-After`, else `X-RateLimit-Reset`, else 0: the caller's own backoff |
/// | 408, 409, 423, 425 and other 4xx | ambiguous | about the request or another one in progress, not about the value |
/// | 3xx | ambiguous | not followed: whoever answered is not who was asked |
/// | 5xx | ambiguous | may be applied already |
/// | any status with half a body | ambiguous | only a whole answer is definite |
///
/// Texts hold no body, only DialNexa's own message, without `known` values.
pub fn patch_report(reply: &Reply, id: &str, elapsed: Duration, known: &[&Secret]) -> PatchReport {
    let (answer, remark) = judge(reply, id);
    let mut line = format!("{} in {} ms", reply.status.as_u16(), elapsed.as_millis());
    if let Some(request_id) = text::request_id(&reply.headers) {
        line += &format!(", request id {request_id}");
    }
    for more in [remark, refusal::said(reply)].into_iter().flatten() {
        line += &format!(": {more}");
    }
    PatchReport { answer, text: text::for_humans(&line, known) }
}

/// The report of a PATCH that got no answer. Also where nothing can have been written: to call it ambiguous does no harm.
pub fn patch_unanswered(why: &str, known: &[&Secret]) -> PatchReport {
    PatchReport { answer: PatchAnswer::Ambiguous { wait: 0 }, text: text::for_humans(why, known) }
}

fn judge(reply: &Reply, id: &str) -> (PatchAnswer, Option<String>) {
    let ambiguous = || PatchAnswer::Ambiguous { wait: millis(rate::retry_after(&reply.headers)) };
    let doubt = |why: &str| (ambiguous(), Some(why.to_owned()));
    if let Body::Cut(why) = &reply.body {
        return doubt(why);
    }
    if !reply.status.is_success() {
        return (refused(reply.status.as_u16(), reply).unwrap_or_else(ambiguous), redirect(reply));
    }
    if reply.status.as_u16() == 204 {
        return (PatchAnswer::Applied, None);
    }
    let body = match reply.json() {
        Ok(body @ Value::Object(_)) => body,
        Ok(_) => return doubt("the body is JSON, but no object"),
        Err(why) => return doubt(&why),
    };
    match envelope::inner_status(&body).unwrap_or(reply.status.as_u16()) {
        200 | 201 | 203 | 204 => {}
        inner => {
            let said = (inner != reply.status.as_u16()).then(|| format!("the body says {inner}"));
            return (refused(inner, reply).unwrap_or_else(ambiguous), said);
        }
    }
    match contradiction(&body, id) {
        None => (PatchAnswer::Applied, None),
        Some(why) => doubt(why),
    }
}

/// The definite refusals. `None`: this status is not one.
fn refused(status: u16, reply: &Reply) -> Option<PatchAnswer> {
    match status {
        400 | 422 => Some(PatchAnswer::ValueRefused),
        401 | 403 => Some(PatchAnswer::ApiKeyRefused),
        404 | 410 => Some(PatchAnswer::WebhookGone),
        429 => Some(PatchAnswer::Limited { wait: millis(rate::wait(&reply.headers)) }),
        _ => None,
    }
}

/// What in a 200 speaks against its having been applied.
fn contradiction(body: &Value, id: &str) -> Option<&'static str> {
    let layers = envelope::layers(body);
    if layers.iter().any(|layer| layer.get("success") == Some(&Value::Bool(false))) {
        return Some("the body says success: false");
    }
    if layers.iter().any(|layer| layer.get("error").is_some_and(is_an_error)) {
        return Some("the body names an error");
    }
    envelope::id(body).is_some_and(|named| named != id).then_some("the body names another webhook")
}

fn is_an_error(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

fn redirect(reply: &Reply) -> Option<String> {
    reply.status.is_redirection().then(|| "a redirect, which is not followed".to_owned())
}

/// 0 where the answer does not say.
fn millis(wait: Option<Duration>) -> Millis {
    wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use PatchAnswer::{Ambiguous, ApiKeyRefused, Applied, Limited, ValueRefused, WebhookGone};
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;

    use super::*;

    const DOUBT: PatchAnswer = Ambiguous { wait: 0 };

    fn reply(status: u16, body: &[u8]) -> Reply {
        let body = Body::Whole(Bytes::copy_from_slice(body));
        Reply { status: StatusCode::from_u16(status).expect("status"), headers: HeaderMap::new(), body }
    }

    fn answer(status: u16, body: &str) -> PatchAnswer {
        judge(&reply(status, body.as_bytes()), "whk_1").0
    }

    #[test]
    fn a_200_in_any_documented_envelope_is_applied_if_it_names_us_or_nobody() {
        for body in [
            r#"{"id":"whk_1","url":"https://x","events":[],"is_active":true,"created_at":"x"}"#,
            r#"{"message":"Webhook updated","webhook":{"id":"whk_1"}}"#,
            r#"{"statusCode":200,"data":{"id":"whk_1","secret":"********"}}"#,
            r#"{"data":{"webhook":{"id":"whk_1"}}}"#,
            r#"{"success":true,"message":"ok"}"#,
            r#"{"id":null,"error":null}"#,
            "{}",
        ] {
            assert_eq!(answer(200, body), Applied, "{body}");
        }
        assert_eq!(answer(204, ""), Applied);
    }

    #[test]
    fn a_2xx_that_is_not_clear_is_ambiguous() {
        for body in [
            "",
            "null",
            "[]",
            "\"ok\"",
            "<html>",
            "{\"id\":\"whk_1\"",
            r#"{"id":"whk_2"}"#,
            r#"{"webhook":{"id":"whk_2"}}"#,
            r#"{"success":false}"#,
            r#"{"error":"nope"}"#,
            r#"{"statusCode":500}"#,
            r#"{"statusCode":"?"}"#,
        ] {
            assert_eq!(answer(200, body), DOUBT, "{body}");
        }
        for status in [202, 205, 206, 226] {
            assert_eq!(answer(status, r#"{"id":"whk_1"}"#), DOUBT, "{status}");
        }
    }

    #[test]
    fn each_refusal_is_told_apart_also_inside_a_200() {
        for (status, expected) in [
            (400, ValueRefused),
            (422, ValueRefused),
            (401, ApiKeyRefused),
            (403, ApiKeyRefused),
            (404, WebhookGone),
            (410, WebhookGone),
            (429, Limited { wait: 0 }),
        ] {
            assert_eq!(answer(status, "not JSON"), expected, "{status}");
            assert_eq!(answer(200, &format!(r#"{{"statusCode":{status},"message":["x"]}}"#)), expected, "{status} inside");
        }
    }

    #[test]
    fn what_may_have_been_applied_is_ambiguous() {
        for status in [301, 302, 303, 307, 308, 402, 405, 408, 409, 413, 423, 425, 451, 500, 502, 503, 504, 599] {
            assert_eq!(answer(status, "{}"), DOUBT, "{status}");
        }
    }

    #[test]
    fn half_an_answer_is_never_definite() {
        for status in [200, 204, 400, 401, 404, 429] {
            let half = Reply { body: Body::Cut("cut off".to_owned()), ..reply(status, b"") };
            assert_eq!(judge(&half, "whk_1").0, DOUBT, "{status}");
        }
    }

    #[test]
    fn waits_come_from_retry_after_and_only_a_429_looks_at_the_reset() {
        let mut limited = reply(429, b"{}");
        limited.headers.insert("x-ratelimit-reset", "60".parse().expect("value"));
        assert_eq!(judge(&limited, "whk_1").0, Limited { wait: 60_000 });
        limited.status = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(judge(&limited, "whk_1").0, DOUBT);
        limited.headers.insert("retry-after", "9999999".parse().expect("value"));
        assert_eq!(judge(&limited, "whk_1").0, Ambiguous { wait: 3_600_000 });
    }

    #[test]
    fn the_text_names_status_time_and_message_and_no_secret() {
        let secret = Secret::parse("correct-horse-battery").unwrap_or_else(|e| panic!("{e}"));
        let mut refusal = reply(400, br#"{"message":["secret correct-horse-battery is weak"],"secret":"whsec_other"}"#);
        refusal.headers.insert("x-request-id", "req-7".parse().expect("value"));
        let report = patch_report(&refusal, "whk_1", Duration::from_millis(41), &[&secret]);
        assert_eq!(report.text, "400 in 41 ms, request id req-7: secret [redacted] is weak");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_no_text_is_too_long(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let report = patch_report(&reply(status, &body), "whk_1", Duration::ZERO, &[]);
            prop_assert!(report.text.chars().count() <= super::text::MAX_TEXT);
            prop_assert!(!report.text.chars().any(char::is_control));
        }
    }
}
