//! The control API: HTTP/1.1 over a unix socket. Who may use it is decided by the file's owner, group and mode (0660); who
//! did is told by the kernel and written into the journal.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | `[Status]` |
//! | `POST /v1/webhooks/{name}`, a `Request` | 200 `Reply`, or 409 `Failure` |
//! | `GET /v1/webhooks/{name}/story?limit=100` | `Story` |

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Path as UrlPath, Query, State, connect_info::Connected},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::IncomingStream,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::until_shutdown;
use crate::daemon::{Failure, Office, Request};

/// Journal lines, attempts and evidence in one answer, unless the question says another number.
const STORY_LIMIT: u32 = 100;

/// Listens at `path`. Its directory is made if the one above it exists; a socket that nobody listens on any more is replaced.
///
/// # Errors
/// `AddrInUse` where another process listens or the path is not a socket; else what the system says.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists()) {
        fs::create_dir(directory)?;
    }
    remove_dead(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn remove_dead(path: &Path) -> io::Result<()> {
    let in_use = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {why}", path.display())));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(meta) if !meta.file_type().is_socket() => return in_use("there is a file that is not a socket; move it away"),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => in_use("another hookturn listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Answers until `shutdown`.
pub async fn serve(listener: UnixListener, office: Arc<dyn Office>, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/v1/home", get(home))
        .route("/v1/status", get(status))
        .route("/v1/webhooks/{name}", post(perform))
        .route("/v1/webhooks/{name}/story", get(story))
        .with_state(office)
        .into_make_service_with_connect_info::<Operator>();
    let server = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    until_shutdown(server.into_future(), shutdown, "the control socket").await;
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone)]
struct Operator(String);

impl Connected<IncomingStream<'_, UnixListener>> for Operator {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Operator {
        Operator(match stream.io().peer_cred() {
            Ok(peer) => format!("operator uid={}", peer.uid()),
            Err(_) => "operator uid=?".to_owned(),
        })
    }
}

async fn home(State(office): State<Arc<dyn Office>>) -> Response {
    answer(office.home().await)
}

async fn status(State(office): State<Arc<dyn Office>>) -> Response {
    answer(office.status().await)
}

async fn perform(
    State(office): State<Arc<dyn Office>>,
    ConnectInfo(Operator(actor)): ConnectInfo<Operator>,
    UrlPath(name): UrlPath<String>,
    Json(request): Json<Request>,
) -> Response {
    answer(office.perform(&name, request, &actor).await)
}

#[derive(Deserialize)]
struct StoryQuery {
    limit: Option<u32>,
}

async fn story(
    State(office): State<Arc<dyn Office>>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<StoryQuery>,
) -> Response {
    answer(office.story(&name, query.limit.unwrap_or(STORY_LIMIT)).await)
}

fn answer(result: Result<impl Serialize, Failure>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(failure) => (StatusCode::CONFLICT, Json(failure)).into_response(),
    }
}
