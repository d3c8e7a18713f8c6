//! What an answer looks like: envelopes, masks, dates, errors, rate headers.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{
    hook::{Change, Hook},
    settings::{Dates, Envelope, ListShape, Mask, RateHeaders, Settings},
    world::{Budget, unix_millis},
};

/// One webhook as an answer shows it.
pub(super) fn webhook(hook: &Hook, change: &Change, settings: &Settings) -> Value {
    let events: Vec<&str> = change.events.as_ref().unwrap_or(&hook.events).iter().map(|name| &**name).collect();
    let mut fields = Map::new();
    fields.insert("id".into(), json!(&*hook.id));
    fields.insert("url".into(), json!(change.url.as_ref().unwrap_or(&hook.url)));
    fields.insert("events".into(), json!(events));
    fields.insert("is_active".into(), json!(change.is_active.unwrap_or(hook.is_active)));
    match settings.mask {
        Mask::Omitted => {}
        Mask::Stars => drop(fields.insert("secret".into(), json!("********"))),
        Mask::Shown => {
            let secret = change.secret.as_ref().unwrap_or(hook.stored_value());
            fields.insert("secret".into(), json!(secret.expose()));
        }
    }
    let created = match settings.dates {
        Dates::Snake => "created_at",
        Dates::Camel => "createdAt",
    };
    fields.insert(created.into(), json!(hook.created_at));
    Value::Object(fields)
}

/// One webhook in its envelope.
pub(super) fn enveloped(webhook: Value, message: &str, status: StatusCode, settings: &Settings) -> Value {
    match settings.envelope {
        Envelope::Root => webhook,
        Envelope::Webhook => json!({"message": message, "webhook": webhook}),
        Envelope::Data => json!({"data": webhook}),
        Envelope::DataWebhook => json!({"data": {"webhook": webhook}}),
        Envelope::StatusData => json!({"statusCode": status.as_u16(), "data": webhook}),
    }
}

/// One page of webhooks.
pub(super) fn page(webhooks: Vec<Value>, page: usize, limit: usize, total: usize, settings: &Settings) -> Value {
    let pages = total.div_ceil(limit);
    let meta = json!({"page": page, "limit": limit, "total": total, "totalPages": pages});
    match settings.list {
        ListShape::Webhooks => json!({
            "message": "Webhooks fetched successfully", "webhooks": webhooks,
            "page": page, "limit": limit, "total": total, "totalPages": pages
        }),
        ListShape::Bare => json!({"total": total, "page": page, "limit": limit, "webhooks": webhooks}),
        ListShape::Data => json!({"data": webhooks}),
        ListShape::DataMeta => json!({"data": webhooks, "meta": meta}),
        ListShape::Nested => json!({"data": {"data": webhooks, "meta": meta}}),
    }
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// `{statusCode, message, error}`; `message` is one text, or a list where a list of complaints is given.
pub(super) fn error(status: StatusCode, message: impl Into<Value>) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    answer(status, &json!({"statusCode": status.as_u16(), "message": message.into(), "error": reason}))
}

/// Adds what every answer of the API carries: a request id and, where switched on, the rate headers.
pub(super) fn with_headers(mut response: Response, request: u64, budget: Budget, settings: &Settings) -> Response {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&format!("req-sandbox-{request}")) {
        headers.insert("x-request-id", id);
    }
    let reset = match settings.rate_headers {
        RateHeaders::None => return response,
        RateHeaders::Delta => budget.reset_in,
        RateHeaders::Epoch => u64::try_from(unix_millis() / 1000).unwrap_or(0) + budget.reset_in,
    };
    headers.insert("x-ratelimit-limit", budget.limit.into());
    headers.insert("x-ratelimit-remaining", budget.remaining.into());
    headers.insert("x-ratelimit-reset", reset.into());
    response
}
