//! `/v1/user-webhooks`, as a client sees it.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer,
    fault::{Operation, Plan},
    hook::Change,
    settings::{EVENTS, Settings},
    shape,
    shared::Shared,
    world::{Budget, Later, World},
};
use crate::{sandbox::http::hang_up, secret::Secret};

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/user-webhooks", get(list).post(create))
        .route("/v1/user-webhooks/{id}", get(show).patch(update).delete(remove))
        .with_state(shared)
}

#[derive(Deserialize)]
struct Paging {
    page: Option<usize>,
    limit: Option<usize>,
    is_active: Option<bool>,
}

async fn list(State(shared): State<Arc<Shared>>, Query(paging): Query<Paging>, headers: HeaderMap) -> Response {
    exchange(shared, headers, move |world| {
        let (page, limit) = (paging.page.unwrap_or(1).max(1), paging.limit.unwrap_or(10).clamp(1, 100));
        let wanted = |active: bool| paging.is_active.is_none_or(|wanted| wanted == active);
        let shown: Vec<_> = world.hooks.values().filter(|hook| !hook.deleted && wanted(hook.is_active)).collect();
        let rows = shown.iter().skip((page - 1).saturating_mul(limit)).take(limit);
        let rows = rows.map(|hook| shape::webhook(hook, &Change::default(), &world.settings)).collect();
        let body = shape::page(rows, page, limit, shown.len(), &world.settings);
        (planned(world, Operation::List), shape::answer(StatusCode::OK, &body), None)
    })
    .await
}

async fn show(State(shared): State<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    exchange(shared, headers, move |world| {
        let plan = planned(world, Operation::Get);
        (plan, one(world, &id, &Change::default(), "Webhook fetched successfully", StatusCode::OK), None)
    })
    .await
}

async fn create(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    exchange(shared, headers, move |world| {
        let change = match parse(&body, &world.settings, &["url", "events", "secret"]) {
            Ok(change) => change,
            Err(complaints) => return (Plan::honest(), shape::error(StatusCode::BAD_REQUEST, complaints), None),
        };
        let (Some(url), Some(events), Some(secret)) = (change.url, change.events, change.secret) else {
            return (Plan::honest(), shape::error(StatusCode::BAD_REQUEST, "url, events and secret are required"), None);
        };
        let id = world.create(&url, events, secret);
        let created = one(world, &id, &Change::default(), "Webhook created successfully", StatusCode::CREATED);
        (Plan::honest(), created, None)
    })
    .await
}

async fn update(State(shared): State<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    exchange(shared, headers, move |world| {
        if world.hook(&id).is_none() {
            return (Plan::honest(), not_found(), None);
        }
        let change = match parse(&body, &world.settings, &[]) {
            Ok(change) => change,
            Err(complaints) => return (Plan::honest(), shape::error(StatusCode::BAD_REQUEST, complaints), None),
        };
        let plan = planned(world, Operation::Patch);
        // Rendered before anything is applied: an answer shows what was asked for, whatever becomes of it.
        let honest = one(world, &id, &change, "Webhook updated successfully", StatusCode::OK);
        let later = world.patch(&id, change, plan.apply);
        (plan, honest, later)
    })
    .await
}

async fn remove(State(shared): State<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    exchange(shared, headers, move |world| {
        let Some(hook) = world.hook(&id) else { return (Plan::honest(), not_found(), None) };
        hook.deleted = true;
        (Plan::honest(), shape::answer(StatusCode::OK, &json!({"message": "success"})), None)
    })
    .await
}

type Outcome = (Plan, Response, Option<Later>);

/// One request from its arrival to its answer. It runs as a task of its own, because a client that hangs up does not stop
/// a provider in the middle of its work.
async fn exchange<F>(shared: Arc<Shared>, headers: HeaderMap, work: F) -> Response
where
    F: FnOnce(&mut World) -> Outcome + Send + 'static,
{
    let tasks = shared.clone();
    let exchange = async move {
        let (plan, honest, request, budget, settings) = {
            let mut world = shared.world();
            world.requests += 1;
            let limit = world.settings.rate_limit;
            let budget = world.budget.spend(limit);
            let (plan, honest, later) = match refused(&shared, &headers, budget) {
                Some(refusal) => (Plan::honest(), refusal, None),
                None => work(&mut world),
            };
            if let Some(later) = later {
                shared.clone().apply_later(later);
            }
            (plan, honest, world.requests, budget, world.settings)
        };
        shape::with_headers(answer::deliver(plan, honest).await, request, budget, &settings)
    };
    match tasks.spawn(exchange).await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => hang_up(false),
    }
}

/// The refusals that come before any work.
fn refused(shared: &Shared, headers: &HeaderMap, budget: Budget) -> Option<Response> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let presented = bearer.and_then(|key| Secret::parse(key).ok());
    match presented {
        Some(key) if key.same_as(&shared.api_key) => {}
        Some(key) if shared.weak_api_key.as_ref().is_some_and(|weak| key.same_as(weak)) => {
            return Some(shape::error(StatusCode::FORBIDDEN, "API key lacks webhook management permission"));
        }
        _ => return Some(shape::error(StatusCode::UNAUTHORIZED, "Invalid or missing API key")),
    }
    budget.exceeded.then(|| {
        let mut response = shape::error(StatusCode::TOO_MANY_REQUESTS, "Too many requests");
        response.headers_mut().insert(header::RETRY_AFTER, budget.reset_in.into());
        response
    })
}

fn planned(world: &mut World, operation: Operation) -> Plan {
    world.faults.take(operation).map_or_else(Plan::honest, |fault| fault.plan())
}

fn one(world: &mut World, id: &str, change: &Change, message: &str, status: StatusCode) -> Response {
    let settings = world.settings;
    match world.hook(id) {
        Some(hook) => {
            let webhook = shape::webhook(hook, change, &settings);
            shape::answer(status, &shape::enveloped(webhook, message, status, &settings))
        }
        None => not_found(),
    }
}

fn not_found() -> Response {
    shape::error(StatusCode::NOT_FOUND, "Webhook not found")
}

/// Reads the fields of a create or update, or says what is wrong with them. Unknown fields are ignored without a word, as
/// was seen on another endpoint of the provider.
fn parse(body: &[u8], settings: &Settings, required: &[&str]) -> Result<Change, Value> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(json!("Unexpected token in JSON"));
    };
    let mut complaints: Vec<String> =
        required.iter().filter(|name| !fields.contains_key(**name)).map(|name| format!("{name} should not be empty")).collect();
    let mut change = Change::default();
    if let Some(value) = fields.get("url") {
        match value.as_str().filter(|url| is_url(url)) {
            Some(url) => change.url = Some(url.to_owned()),
            None => complaints.push("url must be a URL address".to_owned()),
        }
    }
    if let Some(value) = fields.get("events") {
        match events(value, settings) {
            Some(events) => change.events = Some(events),
            None => complaints.push("each value in events must be a known event type".to_owned()),
        }
    }
    if let Some(value) = fields.get("secret") {
        match value.as_str().and_then(|text| Secret::parse(text).ok()) {
            Some(secret) => change.secret = Some(secret),
            None => complaints.push("secret must be a non-empty string".to_owned()),
        }
    }
    if let Some(value) = fields.get("is_active") {
        match value.as_bool() {
            Some(is_active) => change.is_active = Some(is_active),
            None => complaints.push("is_active must be a boolean value".to_owned()),
        }
    }
    if complaints.is_empty() { Ok(change) } else { Err(json!(complaints)) }
}

fn is_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn events(value: &Value, settings: &Settings) -> Option<Vec<Arc<str>>> {
    let known = |name: &&str| !name.is_empty() && (!settings.known_events_only || EVENTS.contains(name));
    let names = value.as_array().filter(|names| !names.is_empty())?;
    names.iter().map(|name| name.as_str().filter(known).map(Arc::from)).collect()
}
