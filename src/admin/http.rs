//! The status page, `/metrics`, `/healthz` and `/readyz`. Reading only.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::{metrics, page, until_shutdown};
use crate::daemon::{Clock, Failure, Office};

/// Monitors are few. More connections wait, so that nobody can use up the daemon's file descriptors through this port.
const CONNECTIONS: usize = 64;

/// For the head of a request, the first and every later one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers until `shutdown`.
pub async fn serve_status(listener: TcpListener, office: Arc<dyn Office>, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/", get(overview))
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(office);
    until_shutdown(accept(listener, routes, shutdown.clone()), shutdown, "the status server").await;
}

/// As `axum::serve`, with a limit on connections and on the time that a silent one is kept.
async fn accept(listener: TcpListener, routes: Router, shutdown: CancellationToken) -> io::Result<()> {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let (slots, under_way) = (Arc::new(Semaphore::new(CONNECTIONS)), GracefulShutdown::new());
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: others need a moment to give some back.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
        let connection = under_way.watch(connection);
        tokio::spawn(async move {
            // How a monitor's connection ends is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
    under_way.shutdown().await;
    Ok(())
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
