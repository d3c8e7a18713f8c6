use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::stage::{HOOK, Stage, eventually, secret};
use hookturn::{
    sandbox::provider::{BodyShape, Header, Outcome, RetriesSigned},
    secret::signature,
};

#[tokio::test]
async fn a_new_secret_signs_the_very_next_delivery() {
    let stage = Stage::new().await;
    stage.deliver(1).await;
    assert_eq!(stage.patch_secret("second").await.expect("an answer").status(), 200);
    stage.deliver(1).await;
    let requests = stage.endpoint.requests();
    for (request, text) in requests.iter().zip(["first", "second"]) {
        let found = signature::candidates(&request.headers).expect("a signature");
        assert_eq!(found[0].mac, signature::mac(&secret(text), &request.body));
    }
    let log = stage.provider().deliveries(0, None, 10);
    let digest: [u8; 32] = Sha256::digest(&requests[0].body).into();
    assert_eq!((log[0].body_sha256, log[0].seq, log[0].outcome), (digest, 1, Outcome::Accepted));
    assert_eq!(log.iter().map(|d| d.label).collect::<Vec<_>>(), [0, 1]);
    assert_ne!(requests[0].body, requests[1].body);
}

#[tokio::test]
async fn the_header_its_prefix_and_the_body_follow_the_switches() {
    let stage = Stage::new().await;
    for (header, names) in [
        (Header::Dialnexa, &["x-dialnexa-signature"][..]),
        (Header::Nexa, &["x-nexa-signature"]),
        (Header::Both, &["x-nexa-signature", "x-dialnexa-signature"]),
    ] {
        for (prefix, body) in [(true, BodyShape::Flat), (false, BodyShape::Nested)] {
            stage.provider().change_settings(|s| (s.header, s.prefix, s.body) = (header, prefix, body));
            stage.deliver(1).await;
            let request = stage.endpoint.last();
            let found = signature::candidates(&request.headers).expect("a signature");
            assert_eq!(found.iter().map(|c| c.header).collect::<Vec<_>>(), names);
            assert!(found.iter().all(|c| c.prefixed == prefix));
            let value: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
            let event = if body == BodyShape::Flat { &value["event"] } else { &value["event_type"] };
            assert_eq!(event, &json!("call.completed"));
        }
    }
}

#[tokio::test]
async fn a_retry_keeps_its_signature_or_gets_a_new_one_as_switched() {
    for (signed, labels) in [(RetriesSigned::Old, [0, 0]), (RetriesSigned::New, [0, 1])] {
        let stage = Stage::new().await;
        stage.provider().change_settings(|s| s.retries_signed = signed);
        stage.endpoint.answers(&[500]);
        let provider = stage.provider().clone();
        stage.endpoint.meanwhile(move || assert_eq!(provider.change_by_hand(HOOK, secret("second")), Some(1)));
        stage.deliver(1).await;
        let delivery = stage.provider().deliveries(0, None, 1).remove(0);
        assert_eq!(delivery.attempts.iter().map(|a| a.label).collect::<Vec<_>>(), labels, "{signed:?}");
        assert_eq!(delivery.attempts.iter().map(|a| a.status).collect::<Vec<_>>(), [Some(500), Some(200)]);
        assert_eq!((delivery.outcome, delivery.label), (Outcome::Accepted, labels[1]));
    }
}

#[tokio::test]
async fn a_delivery_that_waits_in_the_queue_was_signed_when_its_event_happened() {
    let stage = Stage::new().await;
    stage.provider().change_settings(|s| (s.queue_ms, s.jitter_ms) = (100, 20));
    stage.provider().deliver(HOOK, 1);
    stage.patch_secret("second").await.expect("an answer");
    assert!(stage.provider().settled(Duration::from_secs(20)).await);
    let delivery = stage.provider().deliveries(0, None, 1).remove(0);
    assert_eq!(delivery.label, 0);
    assert!(delivery.attempts[0].at - delivery.signed_at >= 90, "{delivery:?}");
}

#[tokio::test]
async fn after_the_last_retry_a_refused_delivery_is_rejected_and_an_unanswered_one_lost() {
    let stage = Stage::new().await;
    stage.provider().change_settings(|s| s.retries = 2);
    stage.endpoint.answers(&[401, 401, 401]);
    stage.deliver(1).await;
    stage.provider().set_url(HOOK, "http://127.0.0.1:1/");
    stage.deliver(1).await;
    let totals = stage.provider().totals();
    assert_eq!((totals.sent, totals.accepted, totals.rejected, totals.lost), (2, 0, 1, 1));
    assert_eq!((totals.attempts, totals.attempts_failed, totals.pending()), (6, 6, 0));
    let by_label = totals.of(HOOK, 0);
    assert_eq!((by_label.rejected, by_label.lost, by_label.attempts_failed), (1, 1, 6));
}

#[tokio::test]
async fn the_signer_lags_behind_the_answer_and_mixes_for_a_while() {
    let stage = Stage::new().await;
    stage.provider().change_settings(|s| s.propagation_ms = 60_000);
    stage.patch_secret("second").await.expect("an answer");
    assert_eq!((stage.provider().stored(HOOK), stage.provider().signing(HOOK)), (Some(1), Some(vec![0, 1])));
    stage.deliver(2).await;
    stage.provider().change_settings(|s| (s.propagation_ms, s.mixed_ms) = (0, 60_000));
    stage.patch_secret("third").await.expect("an answer");
    stage.deliver(4).await;
    let labels: Vec<_> = stage.provider().deliveries(0, None, 10).iter().map(|d| d.label).collect();
    assert_eq!(labels, [0, 0, 2, 0, 2, 0]);
}

#[tokio::test]
async fn an_inactive_webhook_delivers_nothing_and_a_deleted_one_drops_its_retries() {
    let stage = Stage::new().await;
    stage.provider().set_active(HOOK, false);
    assert_eq!(stage.provider().deliver(HOOK, 3), 0);
    assert_eq!(stage.provider().totals().skipped, 3);
    stage.provider().set_active(HOOK, true);
    stage.endpoint.answers(&[500]);
    let provider = stage.provider().clone();
    stage.endpoint.meanwhile(move || assert!(provider.delete(HOOK)));
    stage.deliver(1).await;
    assert_eq!((stage.provider().totals().dropped, stage.endpoint.requests().len()), (1, 1));
    assert!(stage.provider().restore(HOOK));
    stage.deliver(1).await;
    assert_eq!(stage.provider().totals().accepted, 1);
}

#[tokio::test]
async fn traffic_flows_at_its_rate_until_it_is_switched_off() {
    let stage = Stage::new().await;
    let path = format!("/webhooks/{HOOK}");
    let (status, state) = stage.control(Method::PATCH, &path, Some(json!({"per_second": 200.0}))).await;
    assert_eq!((status, &state["per_second"]), (200, &json!(200.0)));
    eventually("some traffic", || stage.provider().totals().accepted > 20).await;
    stage.control(Method::PATCH, &path, Some(json!({"traffic_on": false}))).await;
    assert!(stage.provider().settled(Duration::from_secs(20)).await);
    let sent = stage.provider().totals().sent;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.provider().totals().sent, sent);
}

#[tokio::test]
async fn the_control_api_changes_by_hand_delivers_and_shows_no_secret() {
    let stage = Stage::new().await;
    let path = format!("/webhooks/{HOOK}");
    let (status, _) = stage.control(Method::PATCH, &path, Some(json!({"secret": "whsec_by_hand"}))).await;
    assert_eq!((status, stage.provider().label_of(HOOK, &secret("whsec_by_hand"))), (200, Some(1)));
    assert_eq!(stage.control(Method::PATCH, &path, Some(json!({"is_active": "whsec_by_hand"}))).await.0, 400);
    assert_eq!(stage.control(Method::PATCH, "/webhooks/whk_other", Some(json!({}))).await.0, 404);
    assert_eq!(stage.control(Method::POST, "/deliver", Some(json!({"count": 2}))).await.1, json!({"begun": 2}));
    assert!(stage.provider().settled(Duration::from_secs(20)).await);
    stage.patch_secret("whsec_by_patch").await.expect("an answer");
    let (_, settings) = stage.control(Method::PATCH, "/settings", Some(json!({"retries": 1, "header": "nexa"}))).await;
    assert_eq!((&settings["retries"], &settings["header"]), (&json!(1), &json!("nexa")));
    assert_eq!(stage.control(Method::PATCH, "/settings", Some(json!({"retrys": 1}))).await.0, 400);
    for shown in ["/state", "/settings", "/faults", "/deliveries", "/totals", "/patches"] {
        let (status, body) = stage.control(Method::GET, shown, None).await;
        assert_eq!(status, 200, "{shown}");
        assert!(!body.to_string().contains("whsec_"), "{shown}");
    }
    let (_, deliveries) = stage.control(Method::GET, "/deliveries?after=1&webhook=whk_a", None).await;
    assert_eq!((deliveries[0]["id"].as_u64(), deliveries[0]["label"].as_u64()), (Some(2), Some(1)));
    assert_eq!(deliveries[0]["body_sha256"].as_str().map(str::len), Some(64));
}
