//! What counts, what is provoked, and what is let in again: as configured, through the real doors.

use std::{fs, time::Duration};

use super::*;

/// More keys for the webhook's table and for its `verify`.
fn configure(world: &World, verify: &str, more: &str) {
    let text = fs::read_to_string(&world.config).expect("the configuration");
    let text = text.replace("verify = { ", &format!("{more}\nverify = {{ {verify}"));
    fs::write(&world.config, text).expect("written");
}

async fn told(world: &World) -> String {
    said(&world.run(&["explain", "billing"]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_is_asked_for_and_shows_nothing_delays_the_proof() {
    let world = World::start(|options| options.status_every = None).await;
    configure(&world, r#"sources = ["report", "tap"], require = ["report", "tap"], "#, "");
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    let done = world.run(&["rotate-now", "billing", "--until", "patched", "--timeout", "60s"]).await;
    assert!(done.status.success(), "{}", said(&done));
    let missing = explained(&world, "door-missing").await;
    assert!(missing.contains("shown by report") && missing.contains("asks for tap"), "{missing}");
    assert_eq!(world.status().await["phase"], "patch");
    world.sandbox.consumer.tell(true, true);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_checks_are_no_evidence_whichever_door_tells_of_them() {
    let (world, _daemon) = {
        let world = World::start(|options| (options.reports, options.status_every) = (false, None)).await;
        configure(&world, r#"ignore = [{ header = "x-synthetic" }, { address = "192.0.2.0/24" }], "#, "");
        world.adopt().await;
        let daemon = world.daemon();
        (world, daemon)
    };
    world.ready().await;
    let secret = initial_secret(&world);
    let check = |nth: u32, header: &'static str, value: &'static str| {
        let body = format!("{{\"check\":{nth}}}");
        let request = reqwest::Client::new().post(format!("http://{}/tap/billing", world.sandbox.deliveries));
        request.header("x-nexa-signature", signature::sign(&secret, body.as_bytes())).header(header, value).body(body)
    };
    for (nth, header, value) in [(1, "x-synthetic", "1"), (2, "x-real-ip", "192.0.2.9")] {
        assert_eq!(check(nth, header, value).send().await.expect("an answer").status(), 204);
    }
    let status = world.until("both are seen", LIMIT, |status| status["deliveries"]["ignored"] == 2).await;
    assert_eq!(status["confirmed"], false, "rightly signed, and no evidence");
    assert_eq!(
        check(3, "x-real-ip", "203.0.113.5").header("user-agent", "DialNexa/1").send().await.expect("an answer").status(),
        204
    );
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    let told = told(&world).await;
    assert!(told.contains("decided by a delivery") && told.contains("from 203.0.113.5, user agent DialNexa/1"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stimulus_is_used_once_in_a_rotation_also_across_a_kill() {
    let world = World::start(|options| options.repeat_max = Duration::from_secs(600)).await;
    let marks = world.dir.path().join("marks");
    let script = world.dir.path().join("call");
    fs::write(&script, format!("#!/bin/sh\necho whsec_on_stdout\necho \"$HOOKTURN_WEBHOOK\" >>{}\n", marks.display()))
        .expect("written");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("made a program");
    configure(&world, "", &format!("stimulus = {{ command = [\"{}\"], after = \"1s\" }}", script.display()));
    world.adopt().await;
    let mut daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    quiet_after_the_patch(&world).await;
    let began = Instant::now();
    while !marks.exists() {
        assert!(began.elapsed() < LIMIT, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.kill().await.expect("killed");
    let _daemon = world.daemon();
    explained(&world, "no-traffic").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fs::read_to_string(&marks).expect("marks"), "billing\n");
    assert!(!world.log().contains("whsec_on_stdout"), "its output goes nowhere");
    let told = told(&world).await;
    assert!(told.contains("the stimulus is used, this once"), "{told}");
    // What was known of the webhook's pattern before the kill is known after it.
    assert!(told.contains("usually one comes every"), "{told}");
    traffic(&world, true);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stimulus_may_be_a_request_that_provokes_the_deciding_delivery() {
    let world = World::start(|options| options.repeat_max = Duration::from_secs(600)).await;
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let answer = async move |headers: axum::http::HeaderMap| {
        let token = headers.get("authorization").map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned());
        let _ = called.send(token);
        "whsec_in_the_answer"
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/call", listener.local_addr().expect("an address"));
    let router = axum::Router::new().route("/call", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    fs::write(world.dir.path().join("call-token"), "call-token\n").expect("written");
    configure(&world, "", &format!("stimulus = {{ post = \"{url}\", token = {{ file = \"call-token\" }}, after = \"1s\" }}"));
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    quiet_after_the_patch(&world).await;
    let token = tokio::time::timeout(LIMIT, calls.recv()).await.expect("it is called");
    assert_eq!(token.flatten().as_deref(), Some("Bearer call-token"));
    world.sandbox.handle().deliver(&world.sandbox.webhook_id, 1);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    assert!(calls.try_recv().is_err(), "once in a rotation");
    assert!(!world.log().contains("whsec_in_the_answer"), "its answer goes nowhere");
    let told = told(&world).await;
    let decided = told.lines().find(|line| line.contains("decided by a delivery")).unwrap_or_default();
    assert!(decided.contains("event call.completed") && decided.contains("user agent"), "a report says it too: {told}");
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_secret_is_let_in_again_for_a_while_and_never_after_a_leak() {
    let (world, _daemon) = confirmed(|_| {}).await;
    let none = world.run(&["reaccept", "billing", "--for", "1h"]).await;
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
    rotated(&world).await;
    let body = "{}";
    let signed = signature::sign(&initial_secret(&world), body.as_bytes());
    let deliver = async || {
        let request = reqwest::Client::new().post(&world.sandbox.consumer.urls()[0]).header("x-nexa-signature", &signed);
        request.body(body).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(deliver().await, 401);
    for wrong in [&["--for", "1h", "--kid", "k_nobody"][..], &["--for", "400d"], &["--for", "soon"]] {
        let done = world.run(&[&["reaccept", "billing"], wrong].concat()).await;
        assert!(matches!(done.status.code(), Some(1 | 64)), "{wrong:?}: {}", said(&done));
    }
    let patches = world.sandbox.handle().patches().len();
    let again = world.run(&["reaccept", "billing", "--for", "4s"]).await;
    assert!(again.status.success(), "{}", said(&again));
    let told = told(&world).await;
    assert!(told.contains("accepts the retired k_") && told.contains("again, until"), "{told}");
    let began = Instant::now();
    for status in [200, 401] {
        while deliver().await != status {
            assert!(began.elapsed() < LIMIT, "never {status}: {}", world.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let status = world.until("it is over", LIMIT, |status| status["reaccepted"] == serde_json::json!([])).await;
    assert_eq!(world.sandbox.handle().patches().len(), patches, "never a target");
    let leaked = status["current"].as_str().expect("a kid").to_owned();
    let done = world.run(&["rotate-now", "billing", "--compromised", "--until", "retired", "--timeout", "90s"]).await;
    assert!(done.status.success(), "{}\n{}", said(&done), world.log());
    let refused = world.run(&["reaccept", "billing", "--for", "1h", "--kid", &leaked]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("had leaked"), "{}", said(&refused));
}
