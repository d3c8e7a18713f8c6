//! `/control`: the handle of the provider over HTTP. Not part of the look-alike; on loopback, without a key.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Injection, Provider, Settings, shape};
use crate::secret::Secret;

pub(super) fn routes(provider: Provider) -> Router {
    Router::new()
        .route("/control/state", get(async |State(p): State<Provider>| Json(p.state())))
        .route("/control/settings", get(async |State(p): State<Provider>| Json(p.settings())).patch(settings))
        .route("/control/faults", get(async |State(p): State<Provider>| Json(p.faults())).post(inject).delete(clear))
        .route("/control/deliver", post(deliver))
        .route("/control/webhooks/{id}", patch(by_hand))
        .route("/control/deliveries", get(deliveries))
        .route("/control/totals", get(async |State(p): State<Provider>| Json(p.totals())))
        .route("/control/patches", get(async |State(p): State<Provider>| Json(p.patches())))
        .route("/control/pending", post(apply_pending).delete(call_off))
        .with_state(provider)
}

/// Changes the given settings and no other.
async fn settings(State(provider): State<Provider>, body: Bytes) -> Response {
    let Ok(Value::Object(given)) = serde_json::from_slice(&body) else { return refused("a JSON object of settings is expected") };
    let Ok(Value::Object(mut merged)) = serde_json::to_value(provider.settings()) else { return refused("no settings") };
    merged.extend(given);
    match serde_json::from_value::<Settings>(Value::Object(merged)) {
        Ok(settings) => {
            provider.change_settings(|current| *current = settings);
            Json(settings).into_response()
        }
        Err(error) => refused(&error.to_string()),
    }
}

async fn inject(State(provider): State<Provider>, body: Bytes) -> Response {
    match serde_json::from_slice::<Injection>(&body) {
        Ok(injection) => {
            provider.inject(injection);
            (StatusCode::CREATED, Json(provider.faults())).into_response()
        }
        Err(error) => refused(&error.to_string()),
    }
}

async fn clear(State(provider): State<Provider>) -> StatusCode {
    provider.clear_faults();
    StatusCode::NO_CONTENT
}

async fn apply_pending(State(provider): State<Provider>) -> StatusCode {
    provider.apply_pending();
    StatusCode::NO_CONTENT
}

async fn call_off(State(provider): State<Provider>) -> StatusCode {
    provider.call_off_pending();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deliver {
    /// May be left out where there is only one.
    webhook: Option<String>,
    count: u64,
}

async fn deliver(State(provider): State<Provider>, body: Bytes) -> Response {
    let Ok(wanted) = serde_json::from_slice::<Deliver>(&body) else { return refused("expected {\"webhook\": ID, \"count\": N}") };
    let id = match wanted.webhook {
        Some(id) => id,
        None => match provider.state().webhooks.as_slice() {
            [only] => only.id.clone(),
            _ => return refused("which webhook? {\"webhook\": ID, \"count\": N}"),
        },
    };
    Json(json!({"begun": provider.deliver(&id, wanted.count)})).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHand {
    secret: Option<String>,
    url: Option<String>,
    is_active: Option<bool>,
    deleted: Option<bool>,
    traffic_on: Option<bool>,
    per_second: Option<f64>,
}

/// What a person does in the dashboard, and what the world does to a webhook.
async fn by_hand(State(provider): State<Provider>, Path(id): Path<String>, body: Bytes) -> Response {
    // The parser's own message could repeat a secret.
    let Ok(given) = serde_json::from_slice::<ByHand>(&body) else {
        return refused("known fields: secret, url, is_active, deleted, traffic_on, per_second");
    };
    let secret = match given.secret.as_deref().map(Secret::parse).transpose() {
        Ok(secret) => secret,
        Err(reason) => return refused(&reason.to_string()),
    };
    if provider.stored(&id).is_none() {
        return shape::error(StatusCode::NOT_FOUND, "no such webhook");
    }
    if let Some(secret) = secret {
        provider.change_by_hand(&id, secret);
    }
    if let Some(url) = given.url {
        provider.set_url(&id, &url);
    }
    if let Some(is_active) = given.is_active {
        provider.set_active(&id, is_active);
    }
    if let Some(deleted) = given.deleted {
        if deleted {
            provider.delete(&id)
        } else {
            provider.restore(&id)
        };
    }
    if let Some(on) = given.traffic_on {
        provider.traffic_on(&id, on);
    }
    if let Some(per_second) = given.per_second {
        provider.traffic(&id, per_second);
    }
    let state = provider.state().webhooks.into_iter().find(|webhook| webhook.id == id);
    Json(state).into_response()
}

#[derive(Deserialize)]
struct Window {
    #[serde(default)]
    after: u64,
    webhook: Option<String>,
    limit: Option<usize>,
}

async fn deliveries(State(provider): State<Provider>, Query(window): Query<Window>) -> Response {
    let limit = window.limit.unwrap_or(100).min(10_000);
    Json(provider.deliveries(window.after, window.webhook.as_deref(), limit)).into_response()
}

fn refused(reason: &str) -> Response {
    shape::error(StatusCode::BAD_REQUEST, reason)
}
