//! Deliveries that are not as they should be. None of them decides anything.

use hookturn::sandbox::SandboxOptions;
use reqwest::{Client, Response, StatusCode, header::HeaderMap};

use super::{LONG, World, tells};

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).build().expect("a client")
}

async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(name.parse::<reqwest::header::HeaderName>().expect("a name"), value.parse().expect("a value"));
    }
    let url = format!("http://{}{path}", world.sandbox.deliveries);
    client().post(url).headers(all).body(body).send().await.expect("an answer")
}

fn quiet(options: &mut SandboxOptions) {
    options.reports = false;
    options.status_every = None;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_cap_is_refused_and_the_door_stays_open() {
    let world = World::start(|_| {}).await;
    let config = std::fs::read_to_string(&world.config).expect("a configuration");
    std::fs::write(&world.config, config.replace("[listen]\n", "[listen]\nmax_body = \"64KiB\"\n")).expect("written");
    let _daemon = world.running().await;
    let token = std::fs::read_to_string(world.sandbox.dir().join("report-token")).expect("a token");
    let bearer = format!("Bearer {token}");
    for (path, length) in [("/tap/billing", 64 * 1024 + 1), ("/report/billing", 16 * 1024 + 1)] {
        let refused = post(&world, path, &[("authorization", &bearer)], vec![b'x'; length]).await;
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    let taken = post(&world, "/tap/billing", &[], vec![b'x'; 64 * 1024]).await;
    assert_eq!(taken.status(), StatusCode::NO_CONTENT);
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_in_the_wrong_shape_two_of_them_or_a_foreign_one_are_counted_and_named() {
    // Nobody else talks to the doors: what the status tells is what this test sent.
    let world = World::start(quiet).await;
    world.adopt().await;
    let _daemon = world.daemon();
    world.ready().await;
    let begun = world.run(&["rotate-now", "billing", "--unconfirmed", "--until", "patched", "--timeout", "60s"]).await;
    assert!(begun.status.success(), "{}", super::said(&begun));
    let right = format!("sha256={}", "ab".repeat(32));
    let strange: [&[(&str, &str)]; 5] = [
        &[("x-nexa-signature", "sha256=xyz")],
        &[("x-nexa-signature", "md5=0011")],
        &[("x-nexa-signature", right.as_str()), ("x-nexa-signature", right.as_str())],
        &[],
        &[("x-nexa-signature", right.as_str())],
    ];
    for (sent, headers) in (1..).zip(strange) {
        assert_eq!(post(&world, "/tap/billing", headers, b"{}".to_vec()).await.status(), StatusCode::NO_CONTENT);
        let status = world.until("counted", LONG, |status| status["deliveries"]["unverified"] == sent).await;
        tells(&status, &["neither"]);
        assert_eq!((&status["phase"], &status["hold"]), (&"patch".into(), &serde_json::Value::Null), "{status:#}");
    }
    world.sandbox.consumer.tell(true, false);
    world.rotates(&[]).await;
}
