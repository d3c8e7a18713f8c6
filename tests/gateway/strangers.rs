//! Bounds: what is too large, too slow, too much, cut off, or gone.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    consumer::Consumer,
    stage::{BODY, Cast, Stage, sign, stage},
};

#[tokio::test]
async fn an_oversized_delivery_is_refused_before_it_is_sent_and_counts_as_lost() {
    let stage = Stage::with(Cast { limit: Some(|limits| limits.max_body = 1000), ..Cast::default() }).await;
    let head = "POST /hook/billing HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n";
    let answer = stage.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(stage.status("now", &[b'x'; 1000]).await, 204);
    assert_eq!(stage.told(|status| status["lost"] == 1).await["lost"], 1);
}

#[tokio::test]
async fn a_delivery_that_is_cut_off_or_too_slow_never_reaches_the_consumer() {
    let stage = Stage::with(Cast {
        limit: Some(|limits| {
            limits.body_timeout = Duration::from_millis(300);
            limits.header_timeout = Duration::from_millis(300);
        }),
        ..Cast::default()
    })
    .await;
    let head = format!("POST /hook/billing HTTP/1.1\r\nHost: h\r\nx-nexa-signature: {}\r\n", sign("now", BODY));
    let mut cut = TcpStream::connect(stage.address).await.expect("connect");
    cut.write_all(format!("{head}Content-Length: {}\r\n\r\n", BODY.len() + 1).as_bytes()).await.expect("write");
    cut.write_all(BODY).await.expect("write");
    cut.shutdown().await.expect("shutdown");
    let slow = stage.raw(format!("{head}Content-Length: 9\r\n\r\n{{").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    stage.raw(b"POST /hook/billing HTTP/1.1\r\nHost:").await;
    assert_eq!(stage.raw(b"").await, "");
    assert!(stage.consumer.got().is_empty());
    assert_eq!(stage.status("now", BODY).await, 204);
}

#[tokio::test]
async fn requests_beyond_the_cap_are_told_to_come_back_and_count_as_lost() {
    let stage = Stage::with(Cast { limit: Some(|limits| limits.max_in_flight = 1), ..Cast::default() }).await;
    stage.consumer.answers(204, Duration::from_secs(2));
    let first = tokio::spawn(stage.post("now", BODY).send());
    while stage.consumer.got().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = stage.post("now", BODY).send().await.expect("answer");
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
    assert_eq!(first.await.expect("task").expect("answer").status(), 204);
    stage.told(|status| status["lost"] == 1).await;
}

#[tokio::test]
async fn a_consumer_that_is_gone_or_silent_is_answered_for_and_one_that_comes_back_is_not() {
    let stage = Stage::with(Cast { gateway: "timeout = \"300ms\"", ..Cast::default() }).await;
    assert_eq!(stage.status("now", BODY).await, 204);
    stage.consumer.answers(204, Duration::from_secs(5));
    assert_eq!(stage.status("now", BODY).await, 504);
    let address = stage.consumer.address;
    stage.consumer.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(stage.status("now", BODY).await, 502 | 504));
    let again = Consumer::start_at(address).await;
    assert_eq!(stage.status("now", BODY).await, 204);
    assert_eq!(again.got().len(), 1);
    assert_eq!(stage.told(|status| status["lost"] == 2).await["lost"], 2);
}

/// The place of a consumer that is gone.
async fn in_its_place(consumer: &Consumer) -> tokio::net::TcpListener {
    consumer.stop();
    let began = std::time::Instant::now();
    loop {
        match tokio::net::TcpListener::bind(consumer.address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{}: {error}", consumer.address),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A consumer that closes a kept connection at the very moment of the next request.
#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_delivery() {
    let stage = stage().await;
    let listener = in_its_place(&stage.consumer).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bin = [0u8; 4096];
                // One answer, then an end in place of the second.
                if stream.read(&mut bin).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    let _ = stream.read(&mut bin).await;
                }
            });
        }
    });
    for at in 0..20 {
        assert_eq!(stage.status("now", BODY).await, 200, "{at}");
    }
}

#[tokio::test]
async fn a_consumer_that_answers_before_it_has_read_gets_all_of_the_delivery_nevertheless() {
    let stage = stage().await;
    let listener = in_its_place(&stage.consumer).await;
    let (told, mut got) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ];
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let told = told.clone();
            tokio::spawn(async move {
                let mut bin = vec![0u8; 1 << 16];
                let mut read = stream.read(&mut bin).await.unwrap_or(0);
                stream.write_all(answer.as_bytes()).await.expect("write");
                tokio::time::sleep(Duration::from_millis(200)).await;
                while let Ok(more @ 1..) = stream.read(&mut bin).await {
                    read += more;
                }
                let _ = told.send(read);
            });
        }
    });
    let body = vec![b'x'; 9 << 20];
    for _ in 0..2 {
        let answer = stage.post("now", &body).send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.text().await.expect("its body").as_str()), (200, "ok"));
        // Once the connection was idle for a few seconds it is closed from our side.
        let read = tokio::time::timeout(Duration::from_secs(60), got.recv()).await.expect("in time").expect("a consumer");
        assert!(read > body.len(), "{read}");
    }
}

#[tokio::test]
async fn a_stop_waits_for_answers_and_tells_kept_connections() {
    let stage = stage().await;
    stage.consumer.answers(204, Duration::from_secs(1));
    let sign = sign("now", BODY);
    let request = [
        format!("POST /hook/billing HTTP/1.1\r\nHost: h\r\nx-nexa-signature: {sign}\r\nContent-Length: {}\r\n\r\n", BODY.len())
            .into_bytes(),
        BODY.to_vec(),
    ]
    .concat();
    let mut stream = TcpStream::connect(stage.address).await.expect("connect");
    stream.write_all(&request).await.expect("write");
    while stage.consumer.got().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.shutdown.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the answer, and then the end");
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("connection: close"), "{answer}");
    stage.served.await.expect("served");
    assert!(TcpStream::connect(stage.address).await.is_err());
}

#[tokio::test]
async fn http_2_without_tls_is_spoken() {
    let stage = stage().await;
    let stream = TcpStream::connect(stage.address).await.expect("connect");
    let (io, executor) = (hyper_util::rt::TokioIo::new(stream), hyper_util::rt::TokioExecutor::new());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("handshake");
    tokio::spawn(connection);
    let request = http::Request::post("http://hooks.example/hook/billing?a")
        .header("x-nexa-signature", sign("new", BODY))
        .body(http_body_util::Full::new(bytes::Bytes::from_static(BODY)))
        .expect("request");
    assert_eq!(sender.send_request(request).await.expect("answer").status(), 204);
    let got = &stage.consumer.got()[0];
    assert_eq!((got.target.as_str(), got.headers["host"].as_bytes()), ("/in?a", &b"hooks.example"[..]));
}
