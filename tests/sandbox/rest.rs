use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{HOOK, Stage, WEAK_KEY};
use hookturn::sandbox::provider::{Dates, Envelope, ListShape, Mask, RateHeaders};

const HOOK_PATH: &str = "/user-webhooks/whk_a";

#[tokio::test]
async fn a_wrong_key_is_401_and_a_weak_one_403_in_the_documented_error_shape() {
    let stage = Stage::new().await;
    for (key, status, error) in [("key_wrong:x", 401, "Unauthorized"), (WEAK_KEY, 403, "Forbidden")] {
        let answer = stage.ask_as(key, Method::GET, HOOK_PATH, None).await.expect("an answer");
        let (got, body) = crate::stage::read(answer).await;
        assert_eq!((got, &body["statusCode"], &body["error"]), (status, &json!(status), &json!(error)));
        assert!(body["message"].is_string());
    }
    assert_eq!(stage.json(Method::GET, "/user-webhooks/whk_other", None).await.0, 404);
}

#[tokio::test]
async fn a_webhook_is_created_changed_and_deleted() {
    let stage = Stage::new().await;
    let body = json!({"url": "http://127.0.0.1:1/", "events": ["call.failed"], "secret": "s"});
    let (status, created) = stage.json(Method::POST, "/user-webhooks", Some(body)).await;
    assert_eq!(status, 201);
    let path = format!("/user-webhooks/{}", created["id"].as_str().expect("an id"));
    let (status, changed) = stage.json(Method::PATCH, &path, Some(json!({"is_active": false, "colour": 1}))).await;
    assert_eq!((status, &changed["is_active"], &changed["url"]), (200, &json!(false), &json!("http://127.0.0.1:1/")));
    assert_eq!(stage.json(Method::DELETE, &path, None).await.0, 200);
    assert_eq!(stage.json(Method::GET, &path, None).await.0, 404);
    assert_eq!(stage.json(Method::PATCH, &path, Some(json!({"secret": "t"}))).await.0, 404);
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    for bad in [
        json!({"url": "not a url"}),
        json!({"url": "ftp://127.0.0.1/"}),
        json!({"events": ["call.unheard_of"]}),
        json!({"events": "call.completed"}),
        json!({"secret": ""}),
        json!({"secret": 7}),
        json!({"is_active": "yes"}),
        json!([]),
    ] {
        let (status, body) = stage.json(Method::PATCH, HOOK_PATH, Some(bad.clone())).await;
        assert_eq!((status, &body["error"]), (400, &json!("Bad Request")), "{bad}");
    }
    let (status, body) = stage.json(Method::POST, "/user-webhooks", Some(json!({"url": "http://a/"}))).await;
    assert_eq!((status, body["message"].as_array().map(Vec::len)), (400, Some(2)));
    assert_eq!(stage.provider().patches().len(), 0);
    assert_eq!(stage.provider().stored(HOOK), Some(0));
}

#[tokio::test]
async fn every_envelope_mask_and_date_style_is_spoken() {
    let stage = Stage::new().await;
    for (envelope, place) in [
        (Envelope::Root, ""),
        (Envelope::Webhook, "/webhook"),
        (Envelope::Data, "/data"),
        (Envelope::DataWebhook, "/data/webhook"),
        (Envelope::StatusData, "/data"),
    ] {
        for (mask, secret) in [(Mask::Omitted, None), (Mask::Stars, Some("********")), (Mask::Shown, Some("first"))] {
            for (dates, created) in [(Dates::Snake, "created_at"), (Dates::Camel, "createdAt")] {
                stage.provider().change_settings(|s| (s.envelope, s.mask, s.dates) = (envelope, mask, dates));
                let (status, body) = stage.json(Method::GET, HOOK_PATH, None).await;
                let webhook = body.pointer(place).expect("the webhook");
                assert_eq!((status, &webhook["id"]), (200, &json!(HOOK)), "{envelope:?}");
                assert_eq!(webhook.get("secret").and_then(Value::as_str), secret);
                assert!(webhook[created].is_string());
            }
        }
    }
}

#[tokio::test]
async fn a_list_comes_in_pages_in_every_shape() {
    let stage = Stage::new().await;
    for n in 0..12 {
        stage.provider().add_webhook(
            &format!("whk_n{n:02}"),
            "http://127.0.0.1:1/",
            &["call.completed"],
            crate::stage::secret("s"),
        );
    }
    for (shape, rows) in [
        (ListShape::Webhooks, "/webhooks"),
        (ListShape::Bare, "/webhooks"),
        (ListShape::Data, "/data"),
        (ListShape::DataMeta, "/data"),
        (ListShape::Nested, "/data/data"),
    ] {
        stage.provider().change_settings(|s| s.list = shape);
        let count = async |query: &str| {
            let (status, body) = stage.json(Method::GET, &format!("/user-webhooks{query}"), None).await;
            assert_eq!(status, 200);
            body.pointer(rows).and_then(Value::as_array).map(Vec::len)
        };
        assert_eq!(count("").await, Some(10), "{shape:?}");
        assert_eq!(count("?page=2").await, Some(3));
        assert_eq!(count("?limit=100").await, Some(13));
        assert_eq!(count("?page=9").await, Some(0));
        assert_eq!(count("?is_active=false").await, Some(0));
    }
}

#[tokio::test]
async fn rate_headers_come_as_a_time_as_seconds_or_not_at_all_and_the_limit_bites() {
    let stage = Stage::new().await;
    let reset = async || {
        let answer = stage.ask(Method::GET, HOOK_PATH, None).await.expect("an answer");
        let value = answer.headers().get("x-ratelimit-reset").map(|v| v.to_str().unwrap_or_default().parse::<u64>());
        value.map(|seconds| seconds.expect("a number"))
    };
    assert!(reset().await.is_some_and(|at| at > 1_700_000_000));
    stage.provider().change_settings(|s| s.rate_headers = RateHeaders::Delta);
    assert!(reset().await.is_some_and(|left| (1..=60).contains(&left)));
    stage.provider().change_settings(|s| s.rate_headers = RateHeaders::None);
    assert_eq!(reset().await, None);
    stage.provider().change_settings(|s| s.rate_limit = 1);
    let answer = stage.ask(Method::GET, HOOK_PATH, None).await.expect("an answer");
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
}
