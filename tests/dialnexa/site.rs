//! A REST server that answers as the test says and remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::Request, response::IntoResponse};
use http::{HeaderMap, Method, StatusCode};

/// One request as it came.
#[derive(Clone)]
pub struct Asked {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub type Said = (StatusCode, Vec<(&'static str, String)>, String);

pub struct Site {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Site {
    /// Answers each request with what `answer` makes of it.
    pub async fn start(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/v1", listener.local_addr().expect("address"));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer) = (asked.clone(), Arc::new(answer));
        let app = Router::new().fallback(move |request: Request| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let asked = hear(request).await;
                log.lock().expect("lock").push(asked.clone());
                respond(answer(&asked))
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Site { url, asked }
    }

    /// The same 200 for everything.
    pub async fn saying(body: &str) -> Site {
        let body = body.to_owned();
        Site::start(move |_| ok(&body)).await
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("lock").clone()
    }
}

pub fn ok(body: &str) -> Said {
    (StatusCode::OK, vec![], body.to_owned())
}

async fn hear(request: Request) -> Asked {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("body");
    Asked { method: parts.method, path: parts.uri.to_string(), headers: parts.headers, body }
}

fn respond((status, headers, body): Said) -> axum::response::Response {
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("value"));
    }
    response
}
