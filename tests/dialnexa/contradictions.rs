//! DialNexa's pages contradict each other. One test for each contradiction: the client lives with every reading.

use hookturn::{
    dialnexa::{Provider, Settings, signature},
    rotation::PatchAnswer::{Applied, Limited},
};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::{
    AMPLE, ID, SECRET, assert_no_secret, client, made, secret, settings,
    site::{Site, ok},
};

async fn patch(site: &Site) -> hookturn::dialnexa::PatchReport {
    let line = client(&site.url).connect().await.unwrap_or_else(|e| panic!("{e}"));
    let report = line.patch_secret(ID, &secret(SECRET), AMPLE).await;
    assert_no_secret(&report.text);
    report
}

#[test]
fn the_signature_comes_under_either_name_with_or_without_prefix() {
    let digits = hex::encode(signature::mac(&secret(SECRET), b"{}"));
    for name in ["X-DialNexa-Signature", "x-dialnexa-signature", "x-nexa-signature"] {
        for value in [digits.clone(), format!("sha256={digits}")] {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("name");
            let headers = HeaderMap::from_iter([(name, value.parse().expect("value"))]);
            let found = signature::candidates(&headers).expect("a candidate");
            assert_eq!(found[0].mac, signature::mac(&secret(SECRET), b"{}"));
        }
    }
}

#[test]
fn the_signature_is_over_the_raw_body_and_not_over_what_it_means() {
    assert_ne!(signature::sign(&secret(SECRET), br#"{"a":1}"#), signature::sign(&secret(SECRET), br#"{"a": 1}"#));
}

#[tokio::test]
async fn any_event_vocabulary_is_read() {
    for events in
        [json!(["call.completed"]), json!(["call_ended", "verification"]), json!(["call.started"]), json!(["order.paid"])]
    {
        let site = Site::saying(&json!({"id": ID, "events": events}).to_string()).await;
        let webhook = client(&site.url).get(ID).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(json!(webhook.events), events);
    }
}

#[tokio::test]
async fn any_envelope_is_read() {
    let webhook = json!({"id": ID, "url": "https://x.example/h", "is_active": true});
    for body in [
        webhook.clone(),
        json!({"message": "Webhook updated", "webhook": webhook}),
        json!({"statusCode": 200, "data": webhook}),
        json!({"data": webhook}),
        json!({"data": {"webhook": webhook}}),
    ] {
        let site = Site::saying(&body.to_string()).await;
        let got = client(&site.url).get(ID).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((got.id.as_str(), got.is_active), (ID, Some(true)));
        assert_eq!(patch(&site).await.answer, Applied, "{body}");
    }
}

#[tokio::test]
async fn a_secret_that_is_masked_absent_or_shown_makes_no_difference() {
    let mut got = Vec::new();
    for shown in [json!("********"), json!(null), json!(SECRET)] {
        let site = Site::saying(&json!({"message": "ok", "webhook": {"id": ID, "secret": shown}}).to_string()).await;
        got.push(client(&site.url).get(ID).await.unwrap_or_else(|e| panic!("{e}")));
        assert_eq!(patch(&site).await.answer, Applied);
    }
    assert!(got.iter().all(|webhook| *webhook == got[0]));
    assert!(!format!("{got:?}").contains(SECRET));
}

#[tokio::test]
async fn the_patch_sends_the_secret_also_where_the_prose_knows_no_such_field() {
    let site = Site::saying(&json!({"message": "ok", "webhook": {"id": ID}}).to_string()).await;
    assert_eq!(patch(&site).await.answer, Applied);
    let sent: serde_json::Value = serde_json::from_slice(&site.asked()[0].body).expect("JSON");
    assert_eq!(sent, json!({"secret": SECRET}));
}

#[tokio::test]
async fn a_reset_is_read_as_seconds_or_as_unix_time() {
    for reset in ["60", "1786010460"] {
        let site = Site::start(move |_| {
            let headers = vec![("x-ratelimit-reset", reset.to_owned()), ("date", "Thu, 06 Aug 2026 10:00:00 GMT".to_owned())];
            (StatusCode::TOO_MANY_REQUESTS, headers, r#"{"statusCode":429,"message":"slow down"}"#.to_owned())
        })
        .await;
        assert_eq!(patch(&site).await.answer, Limited { wait: 60_000 }, "{reset}");
    }
}

#[tokio::test]
async fn any_form_of_api_key_is_sent_as_it_is() {
    for key in ["key_id:secret", "dnx_live_abc", "dnx_test_abc", "a.b-c/d+e="] {
        let site = Site::saying(&json!({"id": ID}).to_string()).await;
        let client = made(Settings { api_key: secret(key), ..settings(&site.url) }).unwrap_or_else(|e| panic!("{e}"));
        client.get(ID).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(site.asked()[0].headers["authorization"], format!("Bearer {key}"));
    }
}

#[tokio::test]
async fn pages_may_hold_ten_or_twenty_whatever_was_asked_for() {
    for size in [10, 20] {
        let site = Site::start(move |asked| {
            let number: usize = asked.path.split("page=").nth(1).and_then(|q| q.split('&').next()?.parse().ok()).expect("page");
            let first = (number - 1) * size;
            let members: Vec<_> = (first..(first + size).min(35)).map(|n| json!({"id": format!("wh_{n}")})).collect();
            ok(&json!({"data": members, "meta": {"page": number, "limit": size, "total": 35}}).to_string())
        })
        .await;
        assert_eq!(client(&site.url).list().await.unwrap_or_else(|e| panic!("{e}")).len(), 35);
    }
}

#[tokio::test]
async fn any_prefix_of_an_id_is_opaque() {
    for id in ["wh_abc123", "whk_c9v3nz8rq4pm", "webhook_abc123", "wh_20260806100000", "42"] {
        let site = Site::start(|asked| ok(&json!({"id": asked.path.rsplit('/').next()}).to_string())).await;
        assert_eq!(client(&site.url).get(id).await.unwrap_or_else(|e| panic!("{e}")).id, id);
    }
}

#[tokio::test]
async fn only_user_webhooks_are_touched_and_a_rotation_never_provokes_a_verification_of_the_url() {
    let site = Site::saying(&json!({"id": ID, "url": "https://x.example/h"}).to_string()).await;
    client(&site.url).get(ID).await.unwrap_or_else(|e| panic!("{e}"));
    patch(&site).await;
    for asked in site.asked() {
        assert!(asked.path.starts_with("/v1/user-webhooks/"), "{}", asked.path);
        assert!(!String::from_utf8_lossy(&asked.body).contains("url"));
    }
}
