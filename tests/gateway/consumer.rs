//! The consumer behind the gateway: it keeps what it got, and answers as it is told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::{net::TcpListener, task::JoinHandle};

/// What came.
#[derive(Debug, Clone)]
pub struct Got {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

#[derive(Clone)]
pub struct Consumer {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<(u16, Duration)>>,
    serving: Arc<JoinHandle<()>>,
}

impl Consumer {
    pub async fn start() -> Consumer {
        Consumer::start_at("127.0.0.1:0".parse().expect("address")).await
    }

    pub async fn start_at(address: SocketAddr) -> Consumer {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.set_reuseaddr(true).expect("reuse");
        socket.bind(address).expect("bind");
        Consumer::on(socket.listen(4096).expect("listen"))
    }

    fn on(listener: TcpListener) -> Consumer {
        let address = listener.local_addr().expect("address");
        let (got, answer) = (Arc::default(), Arc::new(Mutex::new((204, Duration::ZERO))));
        let router = Router::new().fallback(take).with_state((Arc::clone(&got), Arc::clone(&answer)));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
        Consumer { address, got, answer, serving: Arc::new(serving) }
    }

    pub fn answers(&self, status: u16, after: Duration) {
        *self.answer.lock().expect("lock") = (status, after);
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().expect("lock").clone()
    }

    pub fn stop(&self) {
        self.serving.abort();
    }
}

type Told = (Arc<Mutex<Vec<Got>>>, Arc<Mutex<(u16, Duration)>>);

async fn take(State((got, answer)): State<Told>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let (method, target) = (head.method.to_string(), head.uri.to_string());
    got.lock().expect("lock").push(Got { method, target, headers: head.headers, body });
    let (status, after) = *answer.lock().expect("lock");
    tokio::time::sleep(after).await;
    Response::builder()
        .status(status)
        .header("x-consumer", "yes")
        .header("content-type", "text/x-answer")
        .body(Body::from("the consumer's answer"))
        .expect("an answer")
}
