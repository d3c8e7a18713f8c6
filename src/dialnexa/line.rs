//! The one connection of one PATCH.
//!
//! It is opened before the intent to PATCH is written down, and never again: a process that is stopped in between and wakes
//! up later finds it closed by DialNexa, so how late a PATCH can be sent is bounded by DialNexa's clock and not by ours.
//! reqwest would dial anew; hence hyper, by hand. Nothing drives the connection until the request is there, and dropping the
//! line closes the socket.

use std::{future::Future, net::SocketAddr, os::fd::AsFd, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{
    Line, PatchReport, ProviderError,
    client::{Api, MAX_BODY, USER_AGENT, chain, log},
    wire::{self, Body, Reply},
};
use crate::secret::Secret;

/// However patient the settings are: a rotation waits for this with its intent not yet written.
const MAX_CONNECT: Duration = Duration::from_secs(30);
/// The most that is read of the head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// A look at a TLS connection before it is used: what has arrived on it may be no more than session tickets. The runtime
/// collects what has arrived before it lets a timer go off, so any time will do.
const GLANCE: Duration = Duration::from_millis(1);

/// TCP or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Open {
    api: Arc<Api>,
    /// The socket itself, where there is no TLS over it.
    plain: Option<std::net::TcpStream>,
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
}

/// Opens the connection: name, TCP, TLS. Not a byte of HTTP is written.
pub(super) async fn open(api: Arc<Api>) -> Result<Box<dyn Line>, ProviderError> {
    let limit = api.timeout.min(MAX_CONNECT);
    let opened = timeout(limit, dial(&api)).await;
    let (stream, plain) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(why)) => return Err(api.unreachable(&why)),
        Err(_) => return Err(api.unreachable(&format!("no connection within {limit:?}"))),
    };
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|e| api.unreachable(&chain(&e)))?;
    Ok(Box::new(Open { api, plain, sender, connection }))
}

async fn dial(api: &Api) -> Result<(Box<dyn Stream>, Option<std::net::TcpStream>), String> {
    let tcp = dial_tcp(api).await?;
    // One small request: nothing is gained by waiting for more.
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let Some(config) = &api.tls else {
        let socket = tcp.as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
        return Ok((Box::new(tcp), Some(socket.into())));
    };
    let name = ServerName::try_from(api.endpoint.bare_host().to_owned()).map_err(|e| e.to_string())?;
    let tls = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?;
    Ok((Box::new(tls), None))
}

async fn dial_tcp(api: &Api) -> Result<TcpStream, String> {
    let mut last = "the name has no address".to_owned();
    for address in addresses(api).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = format!("{address}: {e}"),
        }
    }
    Err(last)
}

async fn addresses(api: &Api) -> Result<Vec<SocketAddr>, String> {
    if let Some(pinned) = api.endpoint.pinned() {
        return Ok(pinned);
    }
    let found = lookup_host((api.endpoint.bare_host(), api.endpoint.port)).await;
    Ok(found.map_err(|e| format!("no address: {e}"))?.collect())
}

#[async_trait]
impl Line for Open {
    async fn patch_secret(mut self: Box<Self>, id: &str, secret: &Secret, deadline: Duration) -> PatchReport {
        let api = self.api.clone();
        let known = [&api.key, secret];
        let request = match request(&api, id, secret) {
            Ok(request) => request,
            Err(why) => return wire::patch_unanswered(&format!("nothing was sent: {why}"), &known),
        };
        let began = Instant::now();
        match self.exchange(request, deadline).await {
            Ok(reply) => {
                log(reply.status.as_u16(), &reply.headers, &known);
                wire::patch_report(&reply, id, began.elapsed(), &known)
            }
            Err(why) => wire::patch_unanswered(&format!("no answer: {why}"), &known),
        }
    }
}

impl Open {
    /// Sends the request and reads the answer, all before `deadline`. An error: not even the head of an answer came.
    async fn exchange(&mut self, request: Request<Full<Bytes>>, deadline: Duration) -> Result<Reply, String> {
        let Open { plain, sender, connection, .. } = self;
        // hyper would take what came unasked for the answer (a server that gives up on an idle connection says 408 or 400).
        let spoken = match plain {
            Some(socket) => !matches!(socket.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
            None => timeout(GLANCE, &mut *connection).await.is_ok(),
        };
        if spoken {
            return Err("the connection was closed or spoken on before anything was sent".to_owned());
        }
        // No overflow: a deadline out of reach is none.
        let end = Instant::now() + deadline.min(Duration::from_secs(24 * 3600));
        driven(connection, async {
            let response = match timeout_at(end, sender.send_request(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(e)) => return Err(mishap(&e)),
                Err(_) => return Err(format!("nothing came within {deadline:?}")),
            };
            let (head, body) = response.into_parts();
            let body = match timeout_at(end, whole(body)).await {
                Ok(Ok(bytes)) => Body::Whole(bytes),
                Ok(Err(why)) => Body::Cut(why),
                Err(_) => Body::Cut(format!("the answer did not end within {deadline:?}")),
            };
            Ok(Reply { status: head.status, headers: head.headers, body })
        })
        .await
    }
}

/// Runs `exchange` while the connection does its part. The connection may end first, and leave an answer to be taken.
async fn driven<T>(connection: impl Future + Unpin, exchange: impl Future<Output = T>) -> T {
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        _ = connection => {}
    }
    exchange.await
}

fn request(api: &Api, id: &str, secret: &Secret) -> Result<Request<Full<Bytes>>, String> {
    let path = api.endpoint.path(id).map_err(|e| e.to_string())?;
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(path)
        .header(header::HOST, api.endpoint.authority())
        .header(header::AUTHORIZATION, api.bearer.clone())
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::ACCEPT, HeaderValue::from_static("application/json"))
        .header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))
        .header(header::CONNECTION, HeaderValue::from_static("close"));
    let body = body(secret).map_err(|e| e.to_string())?;
    request.body(Full::new(body)).map_err(|e| e.to_string())
}

/// `{"secret":"..."}` and nothing else. Overwritten when the last reference goes; the copies that hyper, rustls and the kernel
/// make on its way are out of reach.
fn body(secret: &Secret) -> serde_json::Result<Bytes> {
    // Room for the worst escaping, so that it never moves and leaves a copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(16 + 6 * secret.expose().len()));
    json.extend_from_slice(br#"{"secret":"#);
    serde_json::to_writer(&mut *json, secret.expose())?;
    json.push(b'}');
    Ok(Bytes::from_owner(json))
}

async fn whole(mut body: Incoming) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("the answer was cut off: {}", mishap(&e)))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > MAX_BODY {
            return Err(format!("the answer is longer than {MAX_BODY} bytes"));
        }
    }
    Ok(bytes.freeze())
}

fn mishap(error: &hyper::Error) -> String {
    let what = if error.is_canceled() || error.is_closed() {
        "the connection was closed before anything was sent"
    } else if error.is_incomplete_message() {
        "the connection was closed"
    } else if error.is_parse() {
        "what came is not HTTP"
    } else {
        "the connection broke"
    };
    format!("{what} ({})", chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_holds_the_secret_and_nothing_else() {
        for text in ["whsec_abc", r#"a"b\c"#, "ünïcode"] {
            let secret = Secret::parse(text).unwrap_or_else(|e| panic!("{e}"));
            let bytes = body(&secret).expect("body");
            let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(value, serde_json::json!({ "secret": text }));
        }
        let plain = body(&Secret::parse("whsec_abc").unwrap_or_else(|e| panic!("{e}"))).expect("body");
        assert_eq!(&plain[..], br#"{"secret":"whsec_abc"}"#);
    }
}
