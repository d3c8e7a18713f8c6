//! What every listener of ours does before it knows what a request wants: places, time-outs, and a body that is read whole
//! or not at all. A stranger costs a bounded amount of everything.

use std::{
    future::Future,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one body.
    pub max_body: usize,
    /// Bytes of all bodies that are in memory at a time. Beyond it, 503.
    pub max_memory: usize,
    /// For the head of a request, and for an idle connection until its next one.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// Beyond it, 503 and the connection is closed.
    pub max_connections: usize,
    /// Requests under way. Beyond it, 503.
    pub max_in_flight: usize,
    /// How long a connection without a request is kept after shutdown was asked for: its sender may be about to send one.
    pub linger: Duration,
    /// How long requests under way may go on after shutdown was asked for.
    pub drain: Duration,
    /// A connection is closed, between two requests, when it is so old.
    pub max_age: Duration,
}

impl Limits {
    /// For the doors: a few short requests at a time.
    pub fn new(max_body: usize) -> Limits {
        Limits {
            max_body,
            max_memory: max_body.saturating_mul(8),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            max_connections: 512,
            max_in_flight: 64,
            linger: Duration::ZERO,
            drain: Duration::from_secs(5),
            max_age: Duration::from_secs(600),
        }
    }
}

/// Connections that are told to come back, at a time; any more are closed without a word.
const TURNED_AWAY_AT_ONCE: usize = 64;
/// Streams of one HTTP/2 connection, and what each may send before it is read.
const MAX_STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 64 * 1024;
/// An announced length is believed up to here, once some of it has come.
const TRUSTED: usize = 128 * 1024;
/// What a connection may hold beside the bodies that are counted: a head, or a part of an answer. A body of 64 KiB comes in one
/// read together with its head, and is then not collected.
const BUFFER: usize = 64 * 1024 + MAX_HEAD;
const MAX_HEAD: usize = 16 * 1024;

/// The limits, and what of them is in use.
#[derive(Debug, Clone)]
pub struct Reception {
    pub limits: Arc<Limits>,
    in_flight: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// A place for a request, kept until it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// A whole body, which counts as memory in use until it is dropped.
#[derive(Debug)]
pub struct Held {
    pub bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

/// Why a body could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body ended early")]
    CutOff,
    #[error("the body took too long")]
    TooSlow,
    #[error("too much at once; try again")]
    Busy,
}

impl Unread {
    pub fn status(self) -> StatusCode {
        match self {
            Unread::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Unread::CutOff => StatusCode::BAD_REQUEST,
            Unread::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Unread::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What is done with the requests of a connection from `peer`.
pub trait Attendant: Clone + Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    fn attend(&self, peer: IpAddr, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;

    /// A connection found no place.
    fn turned_away(&self) {}
}

/// Who serves connections, and the runtime on which.
pub struct Hand<A> {
    runtime: Handle,
    attendant: A,
    /// One more for each connection.
    open: Arc<()>,
}

impl<A: Attendant> Hand<A> {
    pub fn new(runtime: Handle, attendant: A) -> Hand<A> {
        Hand { runtime, attendant, open: Arc::default() }
    }

    /// The runtime that accepts the connections serves them too.
    pub fn here(attendant: A) -> Vec<Hand<A>> {
        vec![Hand::new(Handle::current(), attendant)]
    }
}

impl Reception {
    pub fn new(limits: Limits) -> Reception {
        let in_flight = Arc::new(Semaphore::new(limits.max_in_flight.max(1)));
        let memory = Arc::new(Semaphore::new(limits.max_memory.clamp(1, Semaphore::MAX_PERMITS)));
        Reception { limits: Arc::new(limits), in_flight, memory }
    }

    /// A place for one more request.
    pub fn place(&self) -> Option<Place> {
        self.in_flight.clone().try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// The whole body, as it came after transfer decoding and before any content decoding: what was signed.
    ///
    /// # Errors
    /// Memory is taken for what has come, never for what was announced.
    pub async fn read<B>(&self, headers: &HeaderMap, body: B, cap: usize) -> Result<Held, Unread>
    where
        B: Body<Data = Bytes>,
    {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > cap as u64) {
            return Err(Unread::TooLarge(cap));
        }
        let mut memory = self.memory.clone().try_acquire_many_owned(0).map_err(|_| Unread::Busy)?;
        if body.is_end_stream() {
            return Ok(Held { bytes: Bytes::new(), _memory: memory });
        }
        match timeout(self.limits.body_timeout, self.gather(body, cap, &mut memory)).await {
            Ok(whole) => whole.map(|bytes| Held { bytes, _memory: memory }),
            Err(_) => Err(Unread::TooSlow),
        }
    }

    async fn gather<B: Body<Data = Bytes>>(
        &self,
        body: B,
        cap: usize,
        memory: &mut OwnedSemaphorePermit,
    ) -> Result<Bytes, Unread> {
        let hint = usize::try_from(body.size_hint().lower()).unwrap_or(0);
        let mut body = pin!(body);
        // Most bodies come in one piece, which is then not copied.
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.as_mut().frame().await {
            let Ok(data) = frame.map_err(|_| Unread::CutOff)?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > cap {
                return Err(Unread::TooLarge(cap));
            }
            let size = u32::try_from(data.len()).map_err(|_| Unread::Busy)?;
            memory.merge(self.memory.clone().try_acquire_many_owned(size).map_err(|_| Unread::Busy)?);
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if rest.is_empty() {
                // Grown by what comes: an announced length is believed for a small piece only.
                rest.reserve(hint.clamp(first.len() + data.len(), TRUSTED.max(first.len() + data.len())));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    /// Serves HTTP/1.1 and HTTP/2 without TLS until `shutdown`; then lets requests under way finish, for [`Limits::drain`] at
    /// most. `shared`: others listen on the same socket, and what waits in its queue is theirs.
    ///
    /// Each connection goes to the hand that has the fewest.
    pub async fn serve<A: Attendant>(
        &self,
        listener: TcpListener,
        hands: Vec<Hand<A>>,
        shared: bool,
        shutdown: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(self.limits.max_connections.max(1)));
        let leaving_room = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => match shared {
                    true => break,
                    // Who is in the queue already has been promised an answer by the kernel.
                    false => match timeout(Duration::ZERO, listener.accept()).await {
                        Ok(accepted) => accepted,
                        Err(_) => break,
                    },
                },
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                // No file descriptors, or a connection that is gone already. The pause keeps the former from spinning.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // An answer leaves at once: with Nagle's algorithm every second one could wait for a delayed ACK.
            let _ = stream.set_nodelay(true);
            let Some(hand) = hands.iter().min_by_key(|hand| Arc::strong_count(&hand.open)) else { break };
            match places.clone().try_acquire_owned() {
                Ok(place) => {
                    let held = (place, hand.open.clone());
                    let (limits, attendant, shutdown) = (self.limits.clone(), hand.attendant.clone(), shutdown.clone());
                    let converse = async move {
                        let _held = held;
                        // What it waits for is then told by the runtime that it runs on.
                        if let Ok(stream) = stream.into_std().and_then(TcpStream::from_std) {
                            converse(stream, peer, &limits, attendant, shutdown).await;
                        }
                    };
                    connections.spawn_on(converse, &hand.runtime);
                }
                Err(_) => {
                    hand.attendant.turned_away();
                    if let Ok(room) = leaving_room.clone().try_acquire_owned() {
                        connections.spawn(async move {
                            let _room = room;
                            let _ = timeout(Duration::from_secs(2), turn_away(stream)).await;
                        });
                    }
                }
            }
        }
        drop(listener);
        // What is left after the deadline is cut off where the set is dropped.
        let _ = timeout(self.limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    }
}

async fn turn_away(mut stream: TcpStream) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await?;
    stream.shutdown().await?;
    // Closing with bytes unread would be a reset, which overtakes the answer.
    let mut bin = [0u8; 4096];
    while stream.read(&mut bin).await? > 0 {}
    Ok(())
}

/// What a connection needs for each of its requests.
struct Talk<A> {
    attendant: A,
    shutdown: CancellationToken,
    begun: AtomicBool,
}

/// What may end a connection from our side.
#[derive(Clone, Copy)]
enum Turn {
    /// No request in all the time that one may take to begin.
    Silent,
    /// It may end between two requests.
    Leave,
    /// Who does not even read his answer is not waited for.
    End,
}

async fn converse<A: Attendant>(stream: TcpStream, peer: IpAddr, limits: &Limits, attendant: A, shutdown: CancellationToken) {
    let talk = Arc::new(Talk { attendant, shutdown: shutdown.clone(), begun: AtomicBool::new(false) });
    let service = {
        let talk = talk.clone();
        hyper::service::service_fn(move |request: Request<Incoming>| {
            talk.begun.store(true, Ordering::Relaxed);
            let talk = talk.clone();
            async move {
                let http1 = request.version() <= Version::HTTP_11;
                let mut response = talk.attendant.attend(peer, request).await;
                if http1 && talk.shutdown.is_cancelled() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(Some(limits.header_timeout));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let after = |time: Duration, turn: Turn| sleep(time).map(move |()| turn);
    let linger = limits.linger;
    let told_to_leave = async move {
        shutdown.cancelled().await;
        sleep(linger).await;
        Turn::Leave
    };
    // In a set of their own, so that a request does not have each of them looked at, only what has come true.
    let mut turns = FuturesUnordered::new();
    // Before the first bytes have told HTTP/1 from HTTP/2 no timer of hyper's runs.
    turns.push(after(limits.header_timeout, Turn::Silent).boxed());
    turns.push(after(limits.max_age, Turn::Leave).boxed());
    turns.push(after(limits.max_age + limits.drain, Turn::End).boxed());
    turns.push(told_to_leave.boxed());
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            Some(turn) = turns.next() => match turn {
                Turn::Silent if talk.begun.load(Ordering::Relaxed) => {}
                Turn::Leave => connection.as_mut().graceful_shutdown(),
                Turn::Silent | Turn::End => return,
            },
        }
    }
}
