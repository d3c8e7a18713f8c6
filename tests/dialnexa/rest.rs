use hookturn::dialnexa::{ClientError, Provider, ProviderError, Settings, Update};
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    ID, KEY, assert_no_secret, client, made,
    peer::{Act, Peer},
    settings,
    site::{Asked, Said, Site, ok},
};

fn page_of(asked: &Asked) -> usize {
    let query = asked.path.split_once("page=").expect("a page").1;
    query.split('&').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn webhooks(numbers: std::ops::Range<usize>) -> serde_json::Value {
    numbers.map(|n| json!({"id": format!("whk_{n}"), "url": "https://x.example/h"})).collect()
}

#[tokio::test]
async fn a_get_carries_the_key_and_reads_the_webhook() {
    let body = json!({"id": ID, "url": "https://x.example/h", "events": ["call.completed"], "is_active": true}).to_string();
    let site = Site::saying(&body).await;
    let webhook = client(&site.url).get(ID).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((webhook.id.as_str(), webhook.is_active), (ID, Some(true)));
    let [asked] = &site.asked()[..] else { panic!("one request") };
    assert_eq!((asked.method.clone(), asked.path.as_str()), (Method::GET, "/v1/user-webhooks/whk_c9v3nz8rq4pm"));
    assert_eq!(asked.headers["authorization"], format!("Bearer {KEY}"));
}

#[tokio::test]
async fn an_answer_about_another_webhook_or_none_is_nonsense() {
    for body in [r#"{"id":"whk_other","url":"https://x"}"#, r#"{"message":"ok"}"#, "[]", "<html>", ""] {
        let site = Site::saying(body).await;
        let error = client(&site.url).get(ID).await.expect_err(body);
        assert!(matches!(error, ProviderError::Nonsense(_)), "{body}: {error}");
    }
}

#[tokio::test]
async fn an_answer_without_an_id_is_taken_for_the_one_that_was_asked_for() {
    let site = Site::saying(r#"{"data":{"url":"https://x.example/h"}}"#).await;
    assert_eq!(client(&site.url).get(ID).await.unwrap_or_else(|e| panic!("{e}")).id, ID);
}

#[tokio::test]
async fn no_redirect_is_followed_with_the_key_in_hand() {
    let site =
        Site::start(|_| (StatusCode::TEMPORARY_REDIRECT, vec![("location", "/elsewhere".to_owned())], String::new())).await;
    let error = client(&site.url).get(ID).await.expect_err("a redirect");
    assert!(matches!(error, ProviderError::Nonsense(_)), "{error}");
    assert_eq!(site.asked().len(), 1);
}

#[tokio::test]
async fn nothing_is_asked_twice_by_itself() {
    for act in [Act::Close, Act::Reset, Act::Answer(b"HTTP/1.1 503 Oops\r\ncontent-length: 0\r\n\r\n".to_vec())] {
        let peer = Peer::start(act).await;
        let error = client(&peer.url).get(ID).await.expect_err("no answer");
        assert!(matches!(error, ProviderError::Unreachable(_)), "{error}");
        assert_no_secret(&error.to_string());
        assert_eq!(peer.connections().await.len(), 1);
    }
}

#[tokio::test]
async fn a_request_ends_at_its_timeout_and_an_endless_answer_is_not_read() {
    let peer = Peer::start(Act::Listen).await;
    let hasty = Settings { timeout: std::time::Duration::from_millis(100), ..settings(&peer.url) };
    let error = made(hasty).unwrap_or_else(|e| panic!("{e}")).get(ID).await.expect_err("no answer");
    assert!(matches!(error, ProviderError::Unreachable(_)), "{error}");

    let site = Site::saying(&"x".repeat((1 << 20) + 1)).await;
    let error = client(&site.url).get(ID).await.expect_err("too long");
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn an_echoed_key_stays_out_of_every_error() {
    for status in [400, 401, 404, 418, 429, 500] {
        let site = Site::start(move |_| {
            let body = json!({"statusCode": status, "message": [format!("no: {KEY}")], "error": "X"}).to_string();
            (StatusCode::from_u16(status).expect("status"), vec![], body)
        })
        .await;
        let error = client(&site.url).get(ID).await.expect_err("refused");
        assert!(error.to_string().contains("no: [redacted]"), "{error}");
        assert_no_secret(&error.to_string());
    }
}

#[tokio::test]
async fn the_list_is_read_to_its_end_whatever_the_totals_say() {
    for total in [0, 1, 45, 9999] {
        let site = Site::start(move |asked| {
            let first = (page_of(asked) - 1) * 20;
            let members = webhooks(first.min(45)..(first + 20).min(45));
            ok(&json!({"webhooks": members, "page": 1, "limit": 10, "total": total, "totalPages": total / 20}).to_string())
        })
        .await;
        assert_eq!(client(&site.url).list().await.unwrap_or_else(|e| panic!("{e}")).len(), 45);
        assert_eq!(site.asked().len(), 4);
    }
}

#[tokio::test]
async fn a_list_ends_where_a_page_repeats_or_is_not_there() {
    let same = Site::start(|_| ok(&webhooks(0..3).to_string())).await;
    assert_eq!(client(&same.url).list().await.unwrap_or_else(|e| panic!("{e}")).len(), 3);
    assert_eq!(same.asked().len(), 2);

    let ends = Site::start(|asked| match page_of(asked) {
        1 => ok(&webhooks(0..3).to_string()),
        _ => (StatusCode::NOT_FOUND, vec![], "{}".to_owned()),
    })
    .await;
    assert_eq!(client(&ends.url).list().await.unwrap_or_else(|e| panic!("{e}")).len(), 3);

    let empty = Site::saying(r#"{"webhooks":[]}"#).await;
    assert_eq!(client(&empty.url).list().await.unwrap_or_else(|e| panic!("{e}")).len(), 0);
}

#[tokio::test]
async fn a_list_that_never_ends_or_breaks_half_way_is_an_error_and_not_a_short_list() {
    let endless = Site::start(|asked| ok(&webhooks(page_of(asked)..page_of(asked) + 1).to_string())).await;
    assert!(matches!(client(&endless.url).list().await, Err(ProviderError::Nonsense(_))));
    assert_eq!(endless.asked().len(), 100);

    let breaks: fn(&Asked) -> Said = |asked| match page_of(asked) {
        1 => ok(&webhooks(0..3).to_string()),
        _ => (StatusCode::BAD_GATEWAY, vec![], String::new()),
    };
    let broken = Site::start(breaks).await;
    assert!(matches!(client(&broken.url).list().await, Err(ProviderError::Unreachable(_))));

    let missing = Site::start(|_| (StatusCode::NOT_FOUND, vec![], "{}".to_owned())).await;
    assert!(matches!(client(&missing.url).list().await, Err(ProviderError::Refused { status: 404, .. })));
}

#[tokio::test]
async fn an_update_sends_the_given_fields_and_no_other() {
    let site = Site::saying(&json!({"webhook": {"id": ID, "url": "https://new.example/h"}}).to_string()).await;
    let update = Update { events: Some(vec!["call.completed".to_owned()]), is_active: Some(false), url: None };
    client(&site.url).update(ID, &update).await.unwrap_or_else(|e| panic!("{e}"));
    let [asked] = &site.asked()[..] else { panic!("one request") };
    assert_eq!(asked.method, Method::PATCH);
    let sent: serde_json::Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!(sent, json!({"events": ["call.completed"], "is_active": false}));
}

#[tokio::test]
async fn an_update_that_is_answered_without_the_webhook_is_read_back() {
    let site = Site::start(|asked| match asked.method {
        Method::PATCH => ok(r#"{"message":"success"}"#),
        _ => ok(&json!({"id": ID, "url": "https://new.example/h"}).to_string()),
    })
    .await;
    let update = Update { url: Some("https://new.example/h".to_owned()), ..Update::default() };
    let webhook = client(&site.url).update(ID, &update).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(webhook.url.as_deref(), Some("https://new.example/h"));
    assert_eq!(site.asked().len(), 2);

    client(&site.url).update(ID, &Update::default()).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(site.asked().last().map(|asked| asked.method.clone()), Some(Method::GET));
}

#[tokio::test]
async fn an_id_that_would_change_the_path_is_never_asked_for() {
    let site = Site::saying("{}").await;
    for id in ["..", "a/b", "a?b", "a%2f", ""] {
        let client = client(&site.url);
        assert!(matches!(client.get(id).await, Err(ProviderError::NotFound { .. })));
        let update = Update { is_active: Some(true), ..Update::default() };
        assert!(matches!(client.update(id, &update).await, Err(ProviderError::NotFound { .. })));
    }
    assert!(site.asked().is_empty());
}

#[test]
fn a_client_is_not_made_for_plain_http_beyond_this_machine_or_an_impossible_key() {
    for url in ["http://api.dialnexa.com/v1", "http://192.168.0.1", "ftp://localhost", "nonsense"] {
        assert!(matches!(made(settings(url)), Err(ClientError::BaseUrl(_))), "{url}");
    }
    let odd = Settings { ca_file: Some("/nowhere/ca.pem".into()), ..settings("https://localhost") };
    let error = made(odd).err().expect("no such file").to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
    // Plain http needs no CA bundle, so a missing one is not looked for.
    assert!(made(Settings { ca_file: Some("/nowhere/ca.pem".into()), ..settings("http://localhost:1") }).is_ok());
}
