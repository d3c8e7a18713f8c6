//! Connections to the consumer: plain HTTP/1.1, kept alive.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// Node closes a silent connection after five seconds, others later. A request on one that is being closed would get no answer.
const IDLE_AT_MOST: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 1024;
/// A consumer that restarts refuses connections for a moment. Nothing was sent yet, so it may be tried again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A consumer that has answered may take so long to read the rest. Then its connection is closed.
const REST_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One consumer.
pub(super) struct Upstream {
    host: String,
    port: u16,
    path: String,
    /// Where most deliveries go: the path alone.
    target: Uri,
    idle: Arc<Idle>,
}

/// A connection, which goes on only while somebody who uses it looks at it: the delivery's own task, so that none has to wake
/// another. What has happened to an idle one is found out when it is used again.
pub(super) struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None`: it has ended.
    connection: Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>,
}

#[derive(Default)]
pub(super) struct Idle(Mutex<VecDeque<(Box<Line>, Instant)>>);

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
        let target = uri.path().parse().map_err(|error| format!("{error}"))?;
        Ok(Upstream { host, port: uri.port_u16().unwrap_or(80), path: uri.path().to_owned(), target, idle: Arc::default() })
    }

    /// The same consumer, with connections of its own.
    pub fn apart(&self) -> Upstream {
        let (host, path, target) = (self.host.clone(), self.path.clone(), self.target.clone());
        Upstream { host, port: self.port, path, target, idle: Arc::default() }
    }

    /// Closes the connections that have been idle for long.
    pub fn tidy(&self) {
        self.idle.tidy();
    }

    /// The target of a request: the upstream's path, what came after the webhook's name, and the query.
    pub fn target(&self, suffix: &str, query: Option<&str>) -> Option<Uri> {
        let path = if suffix.is_empty() { self.path.as_str() } else { self.path.trim_end_matches('/') };
        let text = match query {
            Some(query) => format!("{path}{suffix}?{query}"),
            None if suffix.is_empty() => return Some(self.target.clone()),
            None => format!("{path}{suffix}"),
        };
        text.parse().ok()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// A kept connection that turns out to be closed, without a byte of an answer, costs a second try on a new one: DialNexa
    /// would do no other, only later, if at all.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Answer>, Failure> {
        while let Some(mut line) = self.idle.take() {
            if line.ready().await.is_err() {
                continue;
            }
            match line.ask(request.clone()).await {
                Ok(response) => return Ok(self.answer(response, line)),
                Err(error) if never_answered(&error) => break,
                Err(error) => return Err(Failure::Answer(error)),
            }
        }
        let mut line = self.connect().await?;
        line.ready().await.map_err(Failure::Answer)?;
        let response = line.ask(request).await.map_err(Failure::Answer)?;
        Ok(self.answer(response, line))
    }

    fn answer(&self, response: Response<Incoming>, line: Box<Line>) -> Response<Answer> {
        response.map(|body| {
            let mut answer = Answer::Passed { body, back: Some((self.idle.clone(), line)) };
            if answer.is_end_stream() {
                answer.give_back();
            }
            answer
        })
    }

    async fn connect(&self) -> Result<Box<Line>, Failure> {
        let stream = self.dial().await.map_err(Failure::Connect)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Answer)?;
        Ok(Box::new(Line { sender, connection: Some(connection) }))
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

impl Line {
    /// Lets the connection do what it has to do. How it ends is seen where it was used.
    fn advance(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// Waits until a request can be sent.
    async fn ready(&mut self) -> hyper::Result<()> {
        poll_fn(|cx| {
            self.advance(cx);
            self.sender.poll_ready(cx)
        })
        .await
    }

    /// Waits until the rest of a request has gone. hyper does not ask for the next one in the moment in which the last byte
    /// goes, but when it is looked at once more; a consumer that waits for us would never give an occasion.
    async fn rested(&mut self) -> hyper::Result<()> {
        loop {
            if let Ok(ready) = tokio::time::timeout(LOOK_AGAIN, self.ready()).await {
                return ready;
            }
        }
    }

    /// Sends a request and waits for the head of its answer.
    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let mut response = pin!(self.sender.send_request(request));
        poll_fn(|cx| {
            self.advance(cx);
            response.as_mut().poll(cx)
        })
        .await
    }
}

impl Idle {
    /// The one that was used last: the others may run out.
    fn take(&self) -> Option<Box<Line>> {
        let (line, since) = self.lines().pop_back()?;
        if since.elapsed() > IDLE_AT_MOST {
            // Those before it are older still.
            self.lines().clear();
            return None;
        }
        Some(line)
    }

    fn put(&self, line: Box<Line>) {
        let mut lines = self.lines();
        if lines.len() >= IDLE_CONNECTIONS {
            lines.pop_front();
        }
        lines.push_back((line, Instant::now()));
    }

    fn tidy(&self) {
        let mut lines = self.lines();
        while lines.front().is_some_and(|(_, since)| since.elapsed() > IDLE_AT_MOST) {
            lines.pop_front();
        }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<(Box<Line>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer.
pub(super) enum Answer {
    /// The consumer's, as it comes. The connection goes back to the others at its end.
    Passed {
        body: Incoming,
        back: Option<(Arc<Idle>, Box<Line>)>,
    },
    Own(Full<Bytes>),
}

impl Answer {
    pub fn own(text: impl Into<Bytes>) -> Answer {
        Answer::Own(Full::new(text.into()))
    }

    /// The connection, back to the others. A consumer may answer before it has read all: it gets the rest first.
    fn give_back(&mut self) {
        let Answer::Passed { back, .. } = self else { return };
        let Some((idle, mut line)) = back.take() else { return };
        if line.sender.is_ready() {
            idle.put(line);
        } else if line.connection.is_some() {
            tokio::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(REST_WITHIN, line.rested()).await {
                    idle.put(line);
                }
            });
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (body, back) = match &mut *self {
            Answer::Passed { body, back } => (body, back),
            Answer::Own(body) => return Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        };
        let mut polled = Pin::new(&mut *body).poll_frame(cx);
        if polled.is_pending()
            && let Some((_, line)) = back
        {
            line.advance(cx);
            polled = Pin::new(body).poll_frame(cx);
        }
        match &polled {
            Poll::Ready(Some(Err(_))) => *back = None,
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) if self.is_end_stream() => self.give_back(),
            Poll::Ready(_) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Passed { body, .. } => body.is_end_stream(),
            Answer::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Passed { body, .. } => body.size_hint(),
            Answer::Own(body) => body.size_hint(),
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
