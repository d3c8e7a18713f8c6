use serde_json::{Map, Value};

use super::text;
use crate::dialnexa::Webhook;

/// The keys that an object is wrapped in, in the order in which they are looked for.
const WRAPPERS: [&str; 2] = ["webhook", "data"];
/// The keys that a list is found under.
const LISTS: [&str; 3] = ["webhooks", "data", "items"];
const DEPTH: usize = 4;
/// Longer than any URL that DialNexa takes (150 characters are documented).
const MAX_FIELD: usize = 2048;

/// The webhook in an answer, whichever envelope it comes in: bare, `{message, webhook}`, `{statusCode, data}`, `{data}`,
/// `{data: {webhook}}`. `None` where neither an id nor a URL is there. A secret in it is not looked at.
pub fn webhook(root: &Value) -> Option<Webhook> {
    let found = read(innermost(root)?);
    (!found.id.is_empty() || found.url.is_some()).then_some(found)
}

/// The webhooks on one page of a list: a bare array, or one under `webhooks`, `data`, `data.data` or `data.webhooks`.
/// `None` where there is no list, or where a member of it has no id. What is said about totals is not looked at: the pages
/// do not agree on it.
pub fn page(root: &Value) -> Option<Vec<Webhook>> {
    let members = list(root, DEPTH)?;
    members.iter().map(webhook).map(|found| found.filter(|webhook| !webhook.id.is_empty())).collect()
}

/// The objects from the outermost inwards, following the wrappers.
pub(super) fn layers(root: &Value) -> Vec<&Map<String, Value>> {
    let mut layers = Vec::new();
    let mut next = root.as_object();
    while let Some(layer) = next.filter(|_| layers.len() < DEPTH) {
        layers.push(layer);
        next = WRAPPERS.iter().find_map(|key| layer.get(*key)?.as_object());
    }
    layers
}

/// The webhook's id, where the answer names one.
pub(super) fn id(root: &Value) -> Option<String> {
    innermost(root).and_then(|object| scalar(object.get("id")?))
}

/// A status inside the body: `{"statusCode": 404, ...}`. The innermost wins; one that is no status at all is 0.
pub(super) fn inner_status(root: &Value) -> Option<u16> {
    let stated = layers(root).into_iter().rev().find_map(|layer| scalar(layer.get("statusCode")?))?;
    Some(stated.parse().unwrap_or(0))
}

/// The innermost layer that has an id, or else just the innermost: an envelope may have an id of its own.
fn innermost(root: &Value) -> Option<&Map<String, Value>> {
    let layers = layers(root);
    let named = layers.iter().rev().find(|layer| layer.get("id").is_some_and(|id| !id.is_null()));
    named.or(layers.last()).copied()
}

fn list(value: &Value, depth: usize) -> Option<&Vec<Value>> {
    match value {
        Value::Array(members) => Some(members),
        Value::Object(object) if depth > 0 => LISTS.iter().find_map(|key| list(object.get(*key)?, depth - 1)),
        _ => None,
    }
}

fn read(object: &Map<String, Value>) -> Webhook {
    let field = |names: [&str; 2]| names.iter().find_map(|name| object.get(*name).filter(|value| !value.is_null()));
    let events = object.get("events").and_then(Value::as_array);
    Webhook {
        id: object.get("id").and_then(scalar).unwrap_or_default(),
        url: object.get("url").and_then(scalar),
        events: events.into_iter().flatten().filter_map(scalar).collect(),
        is_active: field(["is_active", "isActive"]).and_then(Value::as_bool),
        created_at: field(["created_at", "createdAt"]).and_then(scalar),
    }
}

/// A string or a number, fit to be shown.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text::clean(text, MAX_FIELD)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bare() -> Value {
        json!({"id": "whk_1", "url": "https://x.example/h", "events": ["call.completed"], "is_active": true,
               "created_at": "2026-08-06T10:00:00Z", "secret": "whsec_shown"})
    }

    #[test]
    fn the_webhook_is_found_in_every_documented_envelope() {
        let expected = webhook(&bare()).expect("bare");
        assert_eq!(expected.id, "whk_1");
        assert_eq!(expected.is_active, Some(true));
        for wrapped in [
            json!({"message": "Webhook updated", "webhook": bare()}),
            json!({"statusCode": 200, "data": bare()}),
            json!({"data": bare()}),
            json!({"data": {"webhook": bare()}}),
            json!({"statusCode": 200, "data": {"message": "ok", "webhook": bare()}}),
            json!({"id": "request-7", "data": bare()}),
        ] {
            assert_eq!(webhook(&wrapped).as_ref(), Some(&expected), "{wrapped}");
        }
        assert_eq!(webhook(&json!({"message": "ok"})), None);
        assert_eq!(webhook(&json!([])), None);
        assert_eq!(webhook(&json!(null)), None);
    }

    #[test]
    fn an_id_of_the_webhook_is_preferred_to_an_empty_wrapper() {
        assert_eq!(id(&json!({"id": "whk_1", "data": {}})), Some("whk_1".to_owned()));
        assert_eq!(id(&json!({"id": null})), None);
        assert_eq!(id(&json!({"webhook": {"id": 7}})), Some("7".to_owned()));
    }

    #[test]
    fn both_spellings_of_the_creation_time_and_of_active_are_read() {
        let camel = webhook(&json!({"id": "a", "createdAt": "2026-08-06", "isActive": false})).expect("webhook");
        assert_eq!((camel.created_at.as_deref(), camel.is_active), (Some("2026-08-06"), Some(false)));
        let snake = webhook(&json!({"id": "a", "created_at": "2026-08-06", "is_active": false})).expect("webhook");
        assert_eq!(camel, snake);
    }

    #[test]
    fn fields_of_a_wrong_type_are_absent_and_never_a_panic() {
        let odd = webhook(&json!({"id": "a", "url": {}, "events": "call.completed", "is_active": "yes"})).expect("webhook");
        assert_eq!(odd, Webhook { id: "a".to_owned(), ..Webhook::default() });
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let odd = webhook(&json!({"id": "a", "url": "https://x\u{1b}[2J/\u{202e}h"})).expect("webhook");
        assert_eq!(odd.url.as_deref(), Some("https://x [2J/h"));
    }

    #[test]
    fn the_list_is_found_in_every_documented_shape() {
        let members = json!([bare(), {"id": "whk_2"}]);
        for list in [
            members.clone(),
            json!({"message": "ok", "webhooks": members, "page": 1, "limit": 10, "total": 2, "totalPages": 1}),
            json!({"total": 2, "page": 1, "limit": 10, "webhooks": members}),
            json!({"data": members}),
            json!({"data": members, "meta": {"page": 1, "limit": 20, "total": 2, "totalPages": 1}}),
            json!({"statusCode": 200, "data": {"data": members, "meta": {}}}),
            json!({"statusCode": 200, "data": {"webhooks": members}}),
        ] {
            let ids: Vec<String> = page(&list).expect("a page").into_iter().map(|webhook| webhook.id).collect();
            assert_eq!(ids, ["whk_1", "whk_2"], "{list}");
        }
        assert_eq!(page(&json!({"webhooks": []})), Some(vec![]));
        assert_eq!(page(&json!({"message": "ok"})), None);
        assert_eq!(page(&json!([{"url": "https://x"}])), None);
    }

    #[test]
    fn an_inner_status_is_read_as_number_or_text() {
        assert_eq!(inner_status(&json!({"statusCode": 404})), Some(404));
        assert_eq!(inner_status(&json!({"statusCode": "404"})), Some(404));
        assert_eq!(inner_status(&json!({"statusCode": 200, "data": {"statusCode": 422}})), Some(422));
        assert_eq!(inner_status(&json!({"statusCode": "ok"})), Some(0));
        assert_eq!(inner_status(&bare()), None);
    }
}
