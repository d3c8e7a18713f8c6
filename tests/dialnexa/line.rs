use std::time::Duration;

use hookturn::{
    dialnexa::{PatchReport, Provider, ProviderError},
    rotation::PatchAnswer::{self, Ambiguous, ApiKeyRefused, Applied, Limited, ValueRefused, WebhookGone},
};

use crate::{
    AMPLE, ID, KEY, SECRET, assert_no_secret, client,
    peer::{Act, Peer},
    secret,
};

const DOUBT: PatchAnswer = Ambiguous { wait: 0 };
/// Time enough for what does come, on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

async fn patch(peer: &Peer, deadline: Duration) -> PatchReport {
    let line = client(&peer.url).connect().await.unwrap_or_else(|e| panic!("{e}"));
    let report = line.patch_secret(ID, &secret(SECRET), deadline).await;
    assert_no_secret(&report.text);
    report
}

async fn patch_once(act: Act, deadline: Duration) -> PatchReport {
    let peer = Peer::start(act).await;
    let report = patch(&peer, deadline).await;
    let connections = peer.connections().await;
    assert_eq!(connections.len(), 1, "a PATCH is never dialled again: {connections:?}");
    assert!(connections[0].matches("PATCH ").count() <= 1, "a PATCH is never sent twice");
    report
}

#[tokio::test]
async fn one_request_goes_out_with_the_secret_and_nothing_else() {
    let peer = Peer::start(Act::AnswerAndHold(http("200 OK", "", r#"{"id":"whk_c9v3nz8rq4pm"}"#))).await;
    assert_eq!(patch(&peer, AMPLE).await.answer, Applied);

    let [request] = &peer.connections().await[..] else { panic!("one connection") };
    let (head, body) = request.split_once("\r\n\r\n").expect("a whole request");
    assert_eq!(body, format!(r#"{{"secret":"{SECRET}"}}"#));
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("PATCH /v1/user-webhooks/whk_c9v3nz8rq4pm HTTP/1.1"));
    let mut headers: Vec<String> = lines.map(|line| line.split(':').next().unwrap_or("").to_ascii_lowercase()).collect();
    headers.sort();
    assert_eq!(headers, ["accept", "authorization", "connection", "content-length", "content-type", "host", "user-agent"]);
    assert!(head.contains(&format!("authorization: Bearer {KEY}")));
    assert!(head.contains("connection: close"));
}

#[tokio::test]
async fn opening_the_line_sends_nothing() {
    let peer = Peer::start(Act::Listen).await;
    let line = client(&peer.url).connect().await.unwrap_or_else(|e| panic!("{e}"));
    drop(line);
    assert_eq!(peer.connections().await, [""]);
}

#[tokio::test]
async fn an_answer_is_taken_whether_or_not_the_connection_is_closed_behind_it() {
    let answer = http("200 OK", "", r#"{"message":"Webhook updated","webhook":{"id":"whk_c9v3nz8rq4pm"}}"#);
    assert_eq!(patch_once(Act::Answer(answer.clone()), AMPLE).await.answer, Applied);
    let report = patch_once(Act::AnswerAndHold(answer), AMPLE).await;
    assert_eq!(report.answer, Applied);
    assert!(report.text.starts_with("200 in ") && report.text.ends_with(": Webhook updated"), "{}", report.text);
    // Without a length the end of the connection is the end of the body.
    let unbounded = b"HTTP/1.1 200 OK\r\n\r\n{\"id\":\"whk_c9v3nz8rq4pm\"}".to_vec();
    assert_eq!(patch_once(Act::Answer(unbounded), AMPLE).await.answer, Applied);
    assert_eq!(patch_once(Act::Answer(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), AMPLE).await.answer, Applied);
    let continued = [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), http("200 OK", "", "{}")].concat();
    assert_eq!(patch_once(Act::Answer(continued), AMPLE).await.answer, Applied);
}

#[tokio::test]
async fn each_refusal_is_told_apart() {
    for (status, expected) in [
        ("400 Bad Request", ValueRefused),
        ("422 Unprocessable Entity", ValueRefused),
        ("401 Unauthorized", ApiKeyRefused),
        ("403 Forbidden", ApiKeyRefused),
        ("404 Not Found", WebhookGone),
        ("429 Too Many Requests", Limited { wait: 7000 }),
        ("408 Request Timeout", Ambiguous { wait: 7000 }),
        ("409 Conflict", Ambiguous { wait: 7000 }),
        ("500 Internal Server Error", Ambiguous { wait: 7000 }),
        ("503 Service Unavailable", Ambiguous { wait: 7000 }),
    ] {
        let body = r#"{"statusCode":0,"message":["because"],"error":"X"}"#;
        let report = patch_once(Act::Answer(http(status, "retry-after: 7\r\nx-request-id: req-1\r\n", body)), AMPLE).await;
        assert_eq!(report.answer, expected, "{status}");
        assert!(report.text.ends_with("ms, request id req-1: because"), "{}", report.text);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let report = patch_once(Act::Answer(http(status, "location: /v1/elsewhere\r\n", "")), AMPLE).await;
        assert_eq!(report.answer, DOUBT, "{status}");
        assert!(report.text.contains("not followed"), "{}", report.text);
    }
}

#[tokio::test]
async fn half_an_answer_is_ambiguous() {
    for (answer, why) in [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":\"whk_c9v3nz8rq4pm\"}".to_vec(), "cut off"),
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 100\r\n\r\n{".to_vec(), "cut off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n".to_vec(), "cut off"),
        (b"HTTP/1.1 200 OK\r\n\r\n{\"id\":\"whk_c9v".to_vec(), "not JSON"),
        (b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), "no answer: the connection was closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), "empty"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "not HTTP"),
        (Vec::new(), "no answer: the connection was closed"),
    ] {
        let report = patch_once(Act::Answer(answer), AMPLE).await;
        assert_eq!(report.answer, DOUBT, "{}", report.text);
        assert!(report.text.contains(why), "{why} is not in {}", report.text);
    }
}

#[tokio::test]
async fn half_an_answer_still_says_how_long_to_wait() {
    let half = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 3\r\ncontent-length: 9\r\n\r\n{".to_vec();
    assert_eq!(patch_once(Act::Answer(half), AMPLE).await.answer, Ambiguous { wait: 3000 });
}

#[tokio::test]
async fn a_broken_connection_is_ambiguous_at_whatever_time_it_breaks() {
    for act in [Act::Reset, Act::ResetEarly] {
        let report = patch_once(act, AMPLE).await;
        assert_eq!(report.answer, DOUBT);
        assert!(report.text.starts_with("no answer: "), "{}", report.text);
    }
}

#[tokio::test]
async fn a_line_that_was_closed_or_spoken_on_meanwhile_is_not_used_and_not_replaced() {
    for act in [Act::Close, Act::Unasked(http("200 OK", "", "{}")), Act::Unasked(http("400 Bad Request", "", "{}"))] {
        let peer = Peer::start(act).await;
        let line = client(&peer.url).connect().await.unwrap_or_else(|e| panic!("{e}"));
        // Returns when the other end has done its part.
        peer.connections().await;
        let report = line.patch_secret(ID, &secret(SECRET), AMPLE).await;
        assert_eq!(report.answer, DOUBT);
        assert!(report.text.ends_with("before anything was sent"), "{}", report.text);
        assert!(peer.connections().await.iter().all(String::is_empty));
    }
}

#[tokio::test]
async fn silence_and_slowness_end_at_the_deadline() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    for (act, why) in [
        (Act::Listen, "nothing came within 1s"),
        (Act::Trickle(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-a: b\r\n".to_vec()), "nothing came within 1s"),
        (Act::Trickle(head.clone(), b" ".to_vec()), "did not end within 1s"),
        (Act::AnswerAndHold(head), "did not end within 1s"),
    ] {
        let report = patch_once(act, SHORT).await;
        assert_eq!(report.answer, DOUBT);
        assert!(report.text.contains(why), "{why} is not in {}", report.text);
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let long = http("200 OK", "", &format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20)));
    let report = patch_once(Act::AnswerAndHold(long), AMPLE).await;
    assert_eq!(report.answer, DOUBT);
    assert!(report.text.contains("longer than"), "{}", report.text);
    let head = http("200 OK", &"x-a: bcdefghijklmnopqrstuvwxyz\r\n".repeat(9000), "{}");
    assert_eq!(patch_once(Act::AnswerAndHold(head), AMPLE).await.answer, DOUBT);
}

#[tokio::test]
async fn an_answer_that_echoes_what_was_sent_does_not_reach_the_text() {
    for body in [
        format!(r#"{{"message":"secret {SECRET} is not allowed for {KEY}"}}"#),
        format!(r#"{{"message":["{}... too weak","Bearer {KEY}"]}}"#, &SECRET[..20]),
        format!(r#"{{"message":{{"secret":"{SECRET}","text":"{SECRET}{SECRET}"}}}}"#),
        format!(r#"{{"error":"{}"}}"#, &SECRET[10..]),
    ] {
        let headers = format!("x-request-id: {SECRET}\r\nretry-after: {KEY}\r\n");
        for status in ["200 OK", "400 Bad Request", "500 Oops"] {
            let report = patch_once(Act::Answer(http(status, &headers, &body)), AMPLE).await;
            assert!(report.text.contains("[redacted]"), "{}", report.text);
        }
    }
    patch_once(Act::Answer(format!("HTTP/1.1 {SECRET}\r\n\r\n").into_bytes()), AMPLE).await;
}

#[tokio::test]
async fn an_id_that_would_change_the_path_is_not_sent() {
    let peer = Peer::start(Act::Listen).await;
    for id in ["../x", "a/b", "a?b=c", "", "a b"] {
        let line = client(&peer.url).connect().await.unwrap_or_else(|e| panic!("{e}"));
        let report = line.patch_secret(id, &secret(SECRET), AMPLE).await;
        assert_eq!(report.answer, DOUBT);
        assert!(report.text.starts_with("nothing was sent: "), "{}", report.text);
    }
    assert!(peer.connections().await.iter().all(String::is_empty));
}

#[tokio::test]
async fn where_nobody_listens_the_line_does_not_open() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("address").port()
    };
    let error = client(&format!("http://127.0.0.1:{port}")).connect().await.err().expect("refused");
    assert!(matches!(&error, ProviderError::Unreachable(why) if why.contains(&format!("127.0.0.1:{port}"))), "{error}");
}
