//! A provider that repeats what it was told, in every form; and requests by hand.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub struct Parrot {
    pub address: SocketAddr,
    sent: Arc<AtomicUsize>,
}

impl Parrot {
    pub async fn start(webhook: &str) -> Parrot {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, sent) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let (counted, webhook) = (sent.clone(), webhook.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = answer(stream, &counted, &webhook).await;
            }
        });
        Parrot { address, sent }
    }

    /// PATCHes that were answered.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn answer(mut stream: TcpStream, sent: &AtomicUsize, webhook: &str) -> std::io::Result<()> {
    let (head, body) = request(&mut stream).await?;
    let bearer =
        head.lines().find_map(|line| line.to_lowercase().starts_with("authorization:").then(|| line[22..].trim())).unwrap_or("?");
    let secret = body.split('"').nth(3).unwrap_or("?");
    let heard = forms(bearer) + &forms(secret);
    let good = format!(
        r#"{{"id":"{webhook}","url":"http://x/{bearer}","events":["{secret}"],"is_active":true,"secret":"{secret}","message":"{heard}"}}"#
    );
    let (status, content) = match head.split(' ').next() {
        Some("PATCH") => match sent.fetch_add(1, Ordering::Relaxed) {
            0 => ("500 Internal Server Error", format!("<html>{heard}</html>")),
            1 => ("200 OK", heard),
            2 => ("200 OK", format!(r#"{{"error":"{heard}"}}"#)),
            3 => ("409 Conflict", format!(r#"{{"message":["{heard}"],"error":{{"code":"{secret}"}}}}"#)),
            4 => ("302 Found", format!(r#"{{"message":"{}"}}"#, &secret[..secret.len() / 2])),
            5 => ("400 Bad Request", format!(r#"{{"statusCode":400,"message":"{secret} {bearer}"}}"#)),
            _ => ("401 Unauthorized", format!(r#"{{"message":"{bearer} is not a key, nor is {heard}"}}"#)),
        },
        _ if head.contains("/user-webhooks?") => ("200 OK", format!(r#"{{"data":[{good}],"message":"{heard}"}}"#)),
        _ => ("200 OK", good),
    };
    let (length, id) = (content.len(), format!("{}{}", &secret[..secret.len() / 2], bearer));
    let head = format!(
        "HTTP/1.1 {status}\r\nx-request-id: {id}\r\nlocation: http://x/{secret}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(content.as_bytes()).await
}

fn forms(value: &str) -> String {
    let half = &value[..value.len() / 2];
    format!(" {value} {half} {} {} {}", hex::encode(value), STANDARD.encode(value), STANDARD.encode(format!("x{value}")))
}

pub async fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

pub async fn post(address: SocketAddr, path: &str, body: &str, bearer: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\ncontent-length: {length}\r\n");
    send(address, &format!("{head}connection: close\r\n\r\n{body}")).await
}

/// Empty where nobody listens.
async fn send(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.read_to_end(&mut answer).await;
    }
    answer
}

async fn request(stream: &mut TcpStream) -> std::io::Result<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0usize) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
