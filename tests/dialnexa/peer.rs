//! A server that does on each connection exactly what it is told, byte by byte, and remembers what it was sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[derive(Clone)]
pub enum Act {
    /// Reads the request, writes this, closes.
    Answer(Vec<u8>),
    /// Reads the request, writes this, and keeps the connection open for ever.
    AnswerAndHold(Vec<u8>),
    /// Reads the request, then writes this a byte at a time, over and over.
    Trickle(Vec<u8>, Vec<u8>),
    /// Reads the request, then resets the connection.
    Reset,
    /// Reads the first bytes of the request, then resets the connection.
    ResetEarly,
    /// Closes at once, without reading.
    Close,
    /// Writes this at once, without having been asked, and closes.
    Unasked(Vec<u8>),
    /// Only reads, to the end.
    Listen,
}

pub struct Peer {
    pub url: String,
    address: SocketAddr,
    log: Log,
}

/// What each connection brought, and whether it is over.
type Log = Arc<Mutex<Vec<Heard>>>;

struct Heard {
    from: SocketAddr,
    bytes: Vec<u8>,
    over: bool,
}

impl Peer {
    /// Does `act` on every connection.
    pub async fn start(act: Act) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let log = Log::default();
        let shared = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let number = shared.lock().expect("lock").len();
                shared.lock().expect("lock").push(Heard { from, bytes: Vec::new(), over: false });
                let (act, log) = (act.clone(), shared.clone());
                tokio::spawn(async move {
                    serve(stream, act, |bytes| log.lock().expect("lock")[number].bytes.extend_from_slice(bytes)).await;
                    log.lock().expect("lock")[number].over = true;
                });
            }
        });
        Peer { url: format!("http://{address}/v1"), address, log }
    }

    /// What came in on each connection, in order, once all are over. A connection of our own goes to the end of the queue
    /// first, so that none opened before this call is missed; it is left out.
    pub async fn connections(&self) -> Vec<String> {
        let own = TcpStream::connect(self.address).await.expect("connect").local_addr().expect("address");
        loop {
            if let Some(all) = self.all_before(own) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn all_before(&self, own: SocketAddr) -> Option<Vec<String>> {
        let log = self.log.lock().expect("lock");
        let end = log.iter().position(|heard| heard.from == own)?;
        let text = |heard: &Heard| heard.over.then(|| String::from_utf8_lossy(&heard.bytes).into_owned());
        log[..end].iter().map(text).collect()
    }
}

async fn serve(mut stream: TcpStream, act: Act, hear: impl Fn(&[u8])) {
    match act {
        Act::Answer(bytes) => {
            read_request(&mut stream, hear).await;
            stream.write_all(&bytes).await.ok();
            stream.shutdown().await.ok();
        }
        Act::AnswerAndHold(bytes) => {
            read_request(&mut stream, &hear).await;
            stream.write_all(&bytes).await.ok();
            read_to_end(&mut stream, hear).await;
        }
        Act::Trickle(first, again) => {
            read_request(&mut stream, hear).await;
            stream.write_all(&first).await.ok();
            for byte in again.iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Act::Reset => {
            read_request(&mut stream, hear).await;
            stream.set_zero_linger().ok();
        }
        Act::ResetEarly => {
            let mut some = [0; 10];
            let got = stream.read(&mut some).await.unwrap_or(0);
            hear(&some[..got]);
            stream.set_zero_linger().ok();
        }
        Act::Close => {}
        Act::Unasked(bytes) => {
            stream.write_all(&bytes).await.ok();
        }
        Act::Listen => read_to_end(&mut stream, hear).await,
    }
}

async fn read_request(stream: &mut TcpStream, hear: impl Fn(&[u8])) {
    let mut all = Vec::new();
    while !is_whole(&all) {
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(got) => {
                hear(&some[..got]);
                all.extend_from_slice(&some[..got]);
            }
        }
    }
}

async fn read_to_end(stream: &mut TcpStream, hear: impl Fn(&[u8])) {
    let mut some = [0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut some).await {
        hear(&some[..got]);
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |n| n.trim().parse().unwrap_or(0));
    body.len() >= length
}
