use std::{io::ErrorKind, sync::Arc};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::stage::{API_KEY, HOOK, Stage, eventually, secret};
use hookturn::sandbox::provider::{Answer, Apply, Cut, Fault, Injection, LateAnswer, Operation};

/// What a client gets.
#[derive(Debug, PartialEq)]
enum Got {
    Status(u16),
    /// The connection ended before the answer did.
    Broken,
    NotJson,
}

async fn patched(stage: &Stage, text: &str) -> Got {
    let Ok(answer) = stage.patch_secret(text).await else { return Got::Broken };
    let status = answer.status().as_u16();
    match answer.text().await {
        Err(_) => Got::Broken,
        Ok(text) if serde_json::from_str::<Value>(&text).is_err() => Got::NotJson,
        Ok(_) => Got::Status(status),
    }
}

#[tokio::test]
async fn each_fault_has_its_effect_and_gives_its_answer() {
    let stage = Stage::new().await;
    let custom =
        Fault::Custom { apply: Apply::Now, answer: Answer::Error { status: 502, retry_after: None }, answer_after_ms: 1 };
    let redirect = Fault::Redirect { to: "http://127.0.0.1:1/".to_owned() };
    let table = [
        (Fault::ApplyThenDrop { cut: Cut::Close }, Got::Broken, true),
        (Fault::ApplyThenDrop { cut: Cut::Half }, Got::Broken, true),
        (Fault::ApplyThenDrop { cut: Cut::Reset }, Got::Broken, true),
        (Fault::DropBeforeApply { cut: Cut::Close }, Got::Broken, false),
        (Fault::DropBeforeApply { cut: Cut::Half }, Got::Broken, false),
        (Fault::DropBeforeApply { cut: Cut::Reset }, Got::Broken, false),
        (Fault::RateLimited { retry_after: Some(7) }, Got::Status(429), false),
        (Fault::ErrorAfterApply, Got::Status(500), true),
        (Fault::ErrorBeforeApply, Got::Status(500), false),
        (Fault::Unavailable, Got::Status(503), false),
        (Fault::LyingOk, Got::Status(200), false),
        (Fault::SecretIgnored, Got::Status(200), false),
        (Fault::Slow { ms: 5 }, Got::Status(200), true),
        (Fault::Trickle { ms: 0 }, Got::Status(200), true),
        (Fault::Garbage, Got::NotJson, true),
        (redirect, Got::Status(307), false),
        (Fault::ValueRefused, Got::Status(400), false),
        (Fault::Unauthorized, Got::Status(401), false),
        (Fault::Forbidden, Got::Status(403), false),
        (Fault::NotFound, Got::Status(404), false),
        (custom, Got::Status(502), true),
    ];
    for (number, (fault, answer, applied)) in table.into_iter().enumerate() {
        let (value, before) = (format!("value-{number}"), stage.provider().stored(HOOK));
        stage.provider().inject(Injection::once(fault.clone()));
        assert_eq!(patched(&stage, &value).await, answer, "{fault:?}");
        let label = stage.provider().label_of(HOOK, &secret(&value));
        assert!(label.is_some(), "{fault:?}: the value was not even seen");
        let after = stage.provider().stored(HOOK);
        assert_eq!(after, if applied { label } else { before }, "{fault:?}");
        stage.deliver(1).await;
        let deliveries = stage.provider().deliveries(0, None, 1_000);
        assert_eq!(deliveries.last().map(|d| d.label), after, "{fault:?}");
        let seen = stage.provider().patches().pop().expect("a PATCH");
        assert_eq!((seen.label, seen.applied_at.is_some()), (label, applied), "{fault:?}");
    }
    assert!(stage.provider().faults().is_empty());
}

#[tokio::test]
async fn a_late_apply_comes_after_its_answer_and_wins_over_what_was_applied_meanwhile() {
    let stage = Stage::new().await;
    for (number, (answer, got)) in
        [(LateAnswer::Ok, Got::Status(200)), (LateAnswer::GatewayTimeout, Got::Status(504)), (LateAnswer::Reset, Got::Broken)]
            .into_iter()
            .enumerate()
    {
        let (late, quick) = (format!("late-{number}"), format!("quick-{number}"));
        stage.provider().inject(Injection::once(Fault::ApplyLate { ms: 60_000, answer }));
        assert_eq!(patched(&stage, &late).await, got);
        assert_eq!(patched(&stage, &quick).await, Got::Status(200));
        assert_eq!(stage.provider().stored(HOOK), stage.provider().label_of(HOOK, &secret(&quick)));
        assert_eq!(stage.provider().pending_applies().len(), 1);
        assert_eq!(stage.control(Method::POST, "/pending", None).await.0, 204);
        assert_eq!(stage.provider().stored(HOOK), stage.provider().label_of(HOOK, &secret(&late)));
        assert!(stage.provider().pending_applies().is_empty());
    }
}

#[tokio::test]
async fn a_late_apply_comes_by_itself_although_the_client_has_hung_up() {
    let stage = Arc::new(Stage::new().await);
    stage.provider().inject(Injection::once(Fault::ApplyLate { ms: 50, answer: LateAnswer::Hang }));
    let client = stage.clone();
    let request = tokio::spawn(async move { client.patch_secret("late").await.is_ok() });
    eventually("the request", || stage.provider().patches().len() == 1).await;
    assert!(!request.is_finished(), "there was an answer");
    request.abort();
    eventually("the late apply", || stage.provider().stored(HOOK) == Some(1)).await;
    stage.deliver(1).await;
    assert_eq!(stage.provider().totals().of(HOOK, 1).accepted, 1);
}

#[tokio::test]
async fn a_duplicate_is_applied_again_over_a_newer_value() {
    let stage = Stage::new().await;
    stage.provider().inject(Injection::once(Fault::DuplicateLate { ms: 60_000 }));
    assert_eq!(patched(&stage, "second").await, Got::Status(200));
    assert_eq!(stage.provider().stored(HOOK), Some(1));
    assert_eq!(patched(&stage, "third").await, Got::Status(200));
    assert_eq!(stage.provider().stored(HOOK), Some(2));
    stage.provider().apply_pending();
    assert_eq!(stage.provider().stored(HOOK), Some(1));
}

/// The bytes of the answer to a PATCH, read from the bare socket, and how they end.
async fn raw_patch(stage: &Stage) -> (String, std::io::Result<()>) {
    let mut socket = TcpStream::connect(stage.running.addr).await.expect("a connection");
    let body = r#"{"secret":"second"}"#;
    let head = format!("PATCH /v1/user-webhooks/{HOOK} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API_KEY}\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).await;
    (String::from_utf8_lossy(&bytes).into_owned(), end.map(drop))
}

#[tokio::test]
async fn the_three_cuts_differ_on_the_wire() {
    let stage = Stage::new().await;
    let cut = async |cut: Cut| {
        stage.provider().inject(Injection::once(Fault::ApplyThenDrop { cut }));
        raw_patch(&stage).await
    };
    let (bytes, end) = cut(Cut::Close).await;
    assert!(bytes.is_empty() && end.is_ok(), "{bytes} {end:?}");
    let (bytes, end) = cut(Cut::Reset).await;
    assert_eq!((bytes.as_str(), end.map_err(|e| e.kind())), ("", Err(ErrorKind::ConnectionReset)));
    let (bytes, end) = cut(Cut::Half).await;
    let (head, body) = bytes.split_once("\r\n\r\n").expect("a whole head");
    assert!(head.starts_with("HTTP/1.1 200 OK") && body.starts_with("{\"") && !body.ends_with('}'), "{bytes}");
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_pending_apply_can_be_called_off() {
    let stage = Stage::new().await;
    stage.provider().inject(Injection::once(Fault::ApplyLate { ms: 60_000, answer: LateAnswer::Ok }));
    assert_eq!(patched(&stage, "late").await, Got::Status(200));
    let (_, state) = stage.control(Method::GET, "/state", None).await;
    assert_eq!(state["pending_applies"][0]["label"], json!(1));
    assert_eq!(stage.control(Method::DELETE, "/pending", None).await.0, 204);
    assert!(stage.provider().pending_applies().is_empty());
}

#[tokio::test]
async fn a_truncated_secret_signs_as_a_value_of_its_own() {
    let stage = Stage::new().await;
    stage.provider().inject(Injection::once(Fault::SecretTruncated { bytes: 4 }));
    assert_eq!(patched(&stage, "second").await, Got::Status(200));
    assert_ne!(stage.provider().label_of(HOOK, &secret("second")), stage.provider().stored(HOOK));
    assert_eq!(stage.provider().label_of(HOOK, &secret("seco")), stage.provider().stored(HOOK));
}

#[tokio::test]
async fn an_ignored_secret_leaves_the_other_fields_changed() {
    let stage = Stage::new().await;
    stage.provider().inject(Injection::once(Fault::SecretIgnored));
    let answer = stage.patch(json!({"secret": "second", "is_active": false})).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let state = stage.provider().state().webhooks.remove(0);
    assert_eq!((state.stored, state.is_active), (0, false));
}

#[tokio::test]
async fn retry_after_and_location_are_sent() {
    let stage = Stage::new().await;
    let header = async |fault: Fault, name: &str| {
        stage.provider().inject(Injection::once(fault));
        let answer = stage.patch_secret("second").await.expect("an answer");
        answer.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned())
    };
    assert_eq!(header(Fault::RateLimited { retry_after: Some(7) }, "retry-after").await.as_deref(), Some("7"));
    assert_eq!(header(Fault::RateLimited { retry_after: None }, "retry-after").await, None);
    let to = "http://127.0.0.1:1/elsewhere".to_owned();
    assert_eq!(header(Fault::Redirect { to: to.clone() }, "location").await, Some(to));
}

#[tokio::test]
async fn the_control_api_queues_one_shot_and_sticky_faults_and_clears_them() {
    let stage = Stage::new().await;
    for body in [json!({"fault": {"kind": "unavailable"}, "sticky": true}), json!({"fault": {"kind": "lying-ok"}, "times": 2})] {
        assert_eq!(stage.control(Method::POST, "/faults", Some(body)).await.0, 201);
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(stage.patch_secret("second").await.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 503, 503]);
    assert_eq!(stage.control(Method::DELETE, "/faults", None).await.0, 204);
    assert_eq!(stage.patch_secret("second").await.expect("an answer").status(), 200);
    assert_eq!(stage.provider().stored(HOOK), Some(1));
    let wrong = json!({"fault": {"kind": "unheard-of"}});
    assert_eq!(stage.control(Method::POST, "/faults", Some(wrong)).await.0, 400);
}

#[tokio::test]
async fn reads_can_be_spoilt_too() {
    let stage = Stage::new().await;
    stage.provider().inject(Injection::once(Fault::NotFound).on(Operation::Get));
    stage.provider().inject(Injection::once(Fault::Garbage).on(Operation::List));
    let (status, _) = stage.json(Method::GET, "/user-webhooks", None).await;
    assert_eq!(status, 200);
    let path = format!("/user-webhooks/{HOOK}");
    assert_eq!(stage.json(Method::GET, &path, None).await.0, 404);
    assert_eq!(stage.json(Method::GET, &path, None).await.0, 200);
}
