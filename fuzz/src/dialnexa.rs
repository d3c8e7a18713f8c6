use std::time::Duration;

use bytes::Bytes;
use hookturn::{
    dialnexa::{
        ProviderError, Webhook,
        wire::{Body, MAX_TEXT, MAX_WAIT, Reply, accept, page, patch_report, request_id, wait, webhook},
    },
    rotation::PatchAnswer,
    secret::Secret,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const KNOWN: &str = "whsec_Qk7-known_0123456789abcdefghijklmnopqrstuvw";
const ID: &str = "whk_1";

/// An answer of DialNexa: `Status:` and header lines, an empty line, the body. `{known}` in it is the secret that was sent; a
/// `Cut:` line makes it half an answer.
///
/// No text of ours holds a piece of the secret, only a whole answer is definite, and nobody makes us wait for ever.
pub fn dialnexa(data: &[u8]) {
    let (lines, body) = super::head_and_body(data);
    let known = Secret::parse(KNOWN).expect("a secret");
    let said = |name: &str| lines.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    let status = said("status").and_then(|text| text.parse().ok()).and_then(|code| StatusCode::from_u16(code).ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().take(64) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::try_from(value.replace("{known}", KNOWN))) {
            headers.append(name, value);
        }
    }
    let text = String::from_utf8_lossy(body);
    let body = if text.contains("{known}") { text.replace("{known}", KNOWN).into_bytes() } else { body.to_vec() };
    let cut = said("cut").map(|why| why.replace("{known}", KNOWN));
    let whole = cut.is_none();
    let reply = Reply {
        status: status.unwrap_or(StatusCode::OK),
        headers,
        body: cut.map_or_else(|| Body::Whole(Bytes::from(body.clone())), Body::Cut),
    };
    let report = patch_report(&reply, ID, Duration::from_millis(41), &[&known]);
    fit_to_be_shown(&report.text);
    definite_only_if_whole(&reply, report.answer, whole);
    match accept(&reply, Some(ID), &[&known]) {
        Ok(value) => {
            assert!(reply.status.is_success() && whole);
            webhook(&value).iter().for_each(shown_webhook);
            page(&value).iter().flatten().for_each(|webhook| {
                assert!(!webhook.id.is_empty());
                shown_webhook(webhook);
            });
        }
        Err(error) => {
            if let ProviderError::Limited { wait: Some(wait), .. } = &error {
                assert!(*wait <= MAX_WAIT);
            }
            let text = error.to_string();
            no_piece_of_the_secret(&text);
        }
    }
    assert!(wait(&reply.headers).is_none_or(|wait| wait <= MAX_WAIT));
    assert!(request_id(&reply.headers).is_none_or(|id| id.chars().count() <= 64 && !id.chars().any(char::is_control)));
}

fn definite_only_if_whole(reply: &Reply, answer: PatchAnswer, whole: bool) {
    let status = reply.status.as_u16();
    match answer {
        PatchAnswer::Applied => {
            assert!(whole && (200..300).contains(&status) && ![202, 205, 206].contains(&status), "{status} is applied")
        }
        PatchAnswer::Ambiguous { wait } | PatchAnswer::Limited { wait } => assert!(u128::from(wait) <= MAX_WAIT.as_millis()),
        PatchAnswer::ValueRefused | PatchAnswer::ApiKeyRefused | PatchAnswer::WebhookGone => {
            assert!(whole && ((400..500).contains(&status) || (200..300).contains(&status)), "{status} is a refusal");
        }
    }
}

fn fit_to_be_shown(text: &str) {
    assert!(text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control), "{text}");
    no_piece_of_the_secret(text);
}

fn no_piece_of_the_secret(text: &str) {
    assert!(!text.contains("whsec_"), "{text}");
    let pieces = (0..=KNOWN.len() - 8).map(|at| &KNOWN[at..at + 8]);
    pieces.for_each(|piece| assert!(!text.contains(piece), "{piece} of the secret is told: {text}"));
}

/// What is kept of a webhook is short and has nothing that moves a cursor.
fn shown_webhook(webhook: &Webhook) {
    let texts = [Some(&webhook.id), webhook.url.as_ref(), webhook.created_at.as_ref()];
    for text in texts.into_iter().flatten().chain(&webhook.events) {
        assert!(text.chars().count() <= 2048 && !text.chars().any(char::is_control), "{text}");
    }
}
