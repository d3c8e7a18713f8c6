//! The one server loop and the one client of the sandbox.
//!
//! The server is driven by hand, not by `axum::serve`, because a faulty provider must be able to do what no handler can:
//! close the connection without a byte, in the middle of an answer, or with a reset.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::SandboxError;

/// A listening server. Dropping it stops it; [`Server::stop`] also waits until its connections are closed.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Binds `addr` (port 0: any free one) and serves `router` until stopped.
    pub(super) async fn start(addr: SocketAddr, router: Router) -> Result<Server, SandboxError> {
        let listener = TcpListener::bind(addr).await.map_err(|source| SandboxError::Bind { addr, source })?;
        let addr = listener.local_addr().map_err(|source| SandboxError::Bind { addr, source })?;
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (stop, connections) = (stopping.clone(), tasks.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone(), stop.clone()))),
                    // Out of file descriptors, or the peer is gone already: neither is cured by trying again at once.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(Server { addr, stopping, tasks })
    }

    pub(super) async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// An answer that is none: the connection is closed without a byte, orderly or (`reset`) with a TCP reset.
pub(super) fn hang_up(reset: bool) -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(HangUp { reset });
    response
}

/// A client for plain HTTP to loopback: no proxy, no redirects, no trust store (the system's may be missing).
pub(super) fn client(timeout: Duration) -> Result<reqwest::Client, SandboxError> {
    // Somebody else may have installed a provider before; whichever it is will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        .pool_max_idle_per_host(64)
        .tcp_nodelay(true)
        .build()
        .map_err(SandboxError::Client)
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the sandbox hangs up")]
struct HangUp {
    reset: bool,
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // An answer must leave at once: with Nagle's algorithm every second one would wait for a delayed ACK.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let line = Line { stream, reset: reset.clone() };
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, reset) = (router.clone(), reset.clone());
        async move {
            let response = match router.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            match response.extensions().get::<HangUp>().copied() {
                Some(hang_up) => {
                    reset.store(hang_up.reset, Ordering::Relaxed);
                    Err(hang_up)
                }
                None => Ok(response),
            }
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let serving = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(line), service);
    tokio::select! {
        () = stop.cancelled() => {}
        // Errors here are hang-ups of ours or of the client's: the sandbox lives on both.
        _ = serving => {}
    }
}

/// A connection that can end in a reset.
struct Line {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Line {
    fn resets(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.resets() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end would go out before the reset and hide it.
        if self.resets() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
