//! Connections to the consumer: plain HTTP/1.1, kept alive.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Sender = http1::SendRequest<Full<Bytes>>;

/// Node closes a silent connection after five seconds, others later. A request on one that is being closed would get no answer.
const IDLE_AT_MOST: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 1024;
/// A consumer that restarts refuses connections for a moment. Nothing was sent yet, so it may be tried again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One consumer.
pub(super) struct Upstream {
    host: String,
    port: u16,
    path: String,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle(Mutex<VecDeque<(Sender, Instant)>>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the consumer cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the consumer gave no whole answer: {0}")]
    Answer(hyper::Error),
}

impl Upstream {
    /// # Errors
    /// A sentence about what the URL lacks.
    pub fn new(url: &str) -> Result<Upstream, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let host = uri.host().ok_or("it names no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Upstream { host, port: uri.port_u16().unwrap_or(80), path: uri.path().to_owned(), idle: Arc::default() })
    }

    /// The target of a request: the upstream's path, what came after the webhook's name, and the query.
    pub fn target(&self, suffix: &str, query: Option<&str>) -> Option<Uri> {
        let path = if suffix.is_empty() { self.path.as_str() } else { self.path.trim_end_matches('/') };
        let text = match query {
            Some(query) => format!("{path}{suffix}?{query}"),
            None if suffix.is_empty() => return self.path.parse().ok(),
            None => format!("{path}{suffix}"),
        };
        text.parse().ok()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// A kept connection that turns out to be closed, without a byte of an answer, costs a second try on a new one: DialNexa
    /// would do no other, only later, if at all.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Answer>, Failure> {
        while let Some(mut sender) = self.idle.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request.clone()).await {
                Ok(response) => return Ok(self.answer(response, sender)),
                Err(error) if never_answered(&error) => break,
                Err(error) => return Err(Failure::Answer(error)),
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(Failure::Answer)?;
        Ok(self.answer(response, sender))
    }

    fn answer(&self, response: Response<Incoming>, sender: Sender) -> Response<Answer> {
        response.map(|body| {
            let mut answer = Answer { body: Piece::Passed(body), back: Some((self.idle.clone(), sender)) };
            answer.give_back_at_end();
            answer
        })
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = self.dial().await.map_err(Failure::Connect)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Answer)?;
        // How it ends is seen where it was used.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let began = Instant::now();
        loop {
            let dialled = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port))).await;
            match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && began.elapsed() < CONNECT_PATIENCE => {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                dialled => return dialled,
            }
        }
    }
}

/// The connection ended before any of an answer was there.
fn never_answered(error: &hyper::Error) -> bool {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return true;
    }
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

impl Idle {
    /// The one that was used last: the others may run out.
    fn take(&self) -> Option<Sender> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = idle.pop_back() {
            if since.elapsed() > IDLE_AT_MOST {
                // Those before it are older still.
                idle.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, sender: Sender) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while idle.front().is_some_and(|(_, since)| since.elapsed() > IDLE_AT_MOST) || idle.len() >= IDLE_CONNECTIONS {
            idle.pop_front();
        }
        idle.push_back((sender, Instant::now()));
    }
}

/// The body of an answer: the consumer's, as it comes, or one of ours.
pub(super) struct Answer {
    body: Piece,
    /// The connection goes back to the others at the end of the body.
    back: Option<(Arc<Idle>, Sender)>,
}

enum Piece {
    Passed(Incoming),
    Own(Full<Bytes>),
}

impl Answer {
    pub fn own(text: impl Into<Bytes>) -> Answer {
        Answer { body: Piece::Own(Full::new(text.into())), back: None }
    }

    fn give_back_at_end(&mut self) {
        if self.body_ended()
            && let Some((idle, sender)) = self.back.take()
        {
            idle.put(sender);
        }
    }

    fn body_ended(&self) -> bool {
        match &self.body {
            Piece::Passed(body) => body.is_end_stream(),
            Piece::Own(body) => body.is_end_stream(),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = match &mut self.body {
            Piece::Passed(body) => Pin::new(body).poll_frame(cx),
            Piece::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        };
        match &polled {
            Poll::Ready(Some(Err(_))) => self.back = None,
            Poll::Ready(_) => self.give_back_at_end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Piece::Passed(body) => body.size_hint(),
            Piece::Own(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_keeps_what_came_after_the_name_and_the_query() {
        let target = |url: &str, suffix: &str, query| {
            Upstream::new(url).expect("a URL").target(suffix, query).expect("a target").to_string()
        };
        assert_eq!(target("http://127.0.0.1:9000/hook", "", None), "/hook");
        assert_eq!(target("http://127.0.0.1:9000/hook/", "", None), "/hook/");
        assert_eq!(target("http://127.0.0.1:9000/", "/x%2Fy", Some("a=%20b")), "/x%2Fy?a=%20b");
        assert_eq!(target("http://127.0.0.1:9000", "", Some("a")), "/?a");
        assert_eq!(target("http://[::1]:9000/a/b", "/c/", None), "/a/b/c/");
    }
}
