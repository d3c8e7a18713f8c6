//! The status page, `/metrics`, `/healthz` and `/readyz`. Reading only.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{metrics, page, until_shutdown};
use crate::daemon::{Clock, Failure, Office};

/// Answers until `shutdown`.
pub async fn serve_status(listener: TcpListener, office: Arc<dyn Office>, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/", get(overview))
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(office);
    let server = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    until_shutdown(server.into_future(), shutdown, "the status server").await;
}

async fn overview(State(office): State<Arc<dyn Office>>) -> Response {
    match office.status().await {
        Ok(statuses) => {
            // The page loads nothing and runs nothing; a browser is told to hold it to that.
            let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")];
            (policy, Html(page::render(&statuses, Clock::system().now()))).into_response()
        }
        Err(failure) => unavailable(&failure),
    }
}

async fn scrape(State(office): State<Arc<dyn Office>>) -> Response {
    match office.status().await {
        Ok(statuses) => match metrics::render(&statuses) {
            Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        Err(failure) => unavailable(&failure),
    }
}

/// The process runs and its loop answers. A restart would help where this fails.
async fn alive(State(office): State<Arc<dyn Office>>) -> Response {
    match office.status().await {
        Ok(_) => "ok\n".into_response(),
        Err(failure) => unavailable(&failure),
    }
}

/// Rotations can proceed. A held webhook does not count: it needs a person, not another instance.
async fn ready(State(office): State<Arc<dyn Office>>) -> Response {
    match office.status().await {
        Ok(statuses) => match statuses.iter().find(|status| status.keystore_trouble.is_some()) {
            None => "ready\n".into_response(),
            Some(status) => {
                let text = format!("{}: {}\n", status.name, status.keystore_trouble.as_deref().unwrap_or_default());
                (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
            }
        },
        Err(failure) => unavailable(&failure),
    }
}

fn unavailable(failure: &Failure) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response()
}
