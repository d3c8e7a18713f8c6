//! How a planned answer leaves: whole, spoilt, or not at all.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream::unfold;

use super::{
    fault::{Answer, Cut, Plan},
    shape,
};
use crate::sandbox::http::hang_up;

/// Turns the honest answer into the one that the plan has for the client, when it is time.
pub(super) async fn deliver(plan: Plan, honest: Response) -> Response {
    tokio::time::sleep(plan.answer_after).await;
    match plan.answer {
        Answer::Honest => honest,
        Answer::Error { status, retry_after } => refusal(status, retry_after),
        Answer::None(Cut::Close) => hang_up(false),
        Answer::None(Cut::Reset) => hang_up(true),
        Answer::None(Cut::Half) => half(honest).await,
        Answer::Trickle { ms } => trickle(honest, Duration::from_millis(ms)).await,
        Answer::Garbage => Response::new(Body::from("<html><body>It works!</body></html>")),
        Answer::Redirect { to } => redirect(&to),
    }
}

fn refusal(status: u16, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = match status {
        StatusCode::BAD_REQUEST => "secret is not acceptable",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        _ => status.canonical_reason().unwrap_or("Error"),
    };
    let mut response = shape::error(status, message);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn redirect(to: &str) -> Response {
    let mut response = shape::error(StatusCode::TEMPORARY_REDIRECT, "Moved");
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// How long the first half has to leave before the connection breaks; without it, both would happen in one go.
const HALF_WAY: Duration = Duration::from_millis(20);

/// The head promises the whole body; half of it comes.
async fn half(honest: Response) -> Response {
    let (mut head, body) = whole(honest).await;
    head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let first = body.slice(..body.len() / 2);
    let chunks = unfold(Some(first), |first| async move {
        match first {
            Some(first) if !first.is_empty() => Some((Ok(first), Some(Bytes::new()))),
            _ => {
                tokio::time::sleep(HALF_WAY).await;
                Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None))
            }
        }
    });
    Response::from_parts(head, Body::from_stream(chunks))
}

/// The body comes byte by byte.
async fn trickle(honest: Response, pause: Duration) -> Response {
    let (mut head, body) = whole(honest).await;
    head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let bytes = unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let byte = rest.split_to(1);
        Some((Ok::<_, Infallible>(byte), rest))
    });
    Response::from_parts(head, Body::from_stream(bytes))
}

async fn whole(response: Response) -> (axum::http::response::Parts, Bytes) {
    let (head, body) = response.into_parts();
    (head, to_bytes(body, usize::MAX).await.unwrap_or_default())
}
