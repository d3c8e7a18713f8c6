use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What public material leaves open or contradicts itself about, as switches. Each default is the documented or the likelier answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub envelope: Envelope,
    pub list: ListShape,
    pub mask: Mask,
    pub dates: Dates,
    pub rate_headers: RateHeaders,
    /// Requests to `/v1` per minute; over it the answer is 429 with `Retry-After`. 0: no limit.
    pub rate_limit: u32,
    /// An event type outside [`EVENTS`] is a 400.
    pub known_events_only: bool,
    pub header: Header,
    /// `sha256=` before the hex digits.
    pub prefix: bool,
    pub body: BodyShape,
    /// How often a delivery is tried again after its first try (0-3 at DialNexa).
    pub retries: u8,
    pub retries_signed: RetriesSigned,
    /// Before the first retry; doubles.
    pub backoff_ms: u64,
    /// How long one try waits for the consumer's answer.
    pub timeout_ms: u64,
    /// Between an event and its first try.
    pub queue_ms: u64,
    /// A random extra up to this, so that deliveries overtake each other.
    pub jitter_ms: u64,
    /// Just before another secret is stored an event happens, whose delivery stays in the queue for so long: what is signed with
    /// the old one and comes late. 0: no such event. It is left out where no events happen by themselves.
    pub straggler_ms: u64,
    /// Events that happen as soon as another secret is stored, under the same condition.
    pub burst: u64,
    /// Between the moment a secret is stored and the moment the signer knows it.
    pub propagation_ms: u64,
    /// After that, for so long, only every second delivery is signed with it.
    pub mixed_ms: u64,
    pub inactive: Inactive,
    pub verification: Verification,
}

/// The subscription names of the REST plane.
pub const EVENTS: [&str; 6] =
    ["call.completed", "call.failed", "call.no_answer", "campaign.completed", "campaign.paused", "workflow.lead.completed"];

/// What is around a webhook object in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Envelope {
    /// The object itself.
    Root,
    /// `{message, webhook}`
    Webhook,
    /// `{data}`
    Data,
    /// `{data: {webhook}}`
    DataWebhook,
    /// `{statusCode, data}`
    StatusData,
}

/// What is around a page of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListShape {
    /// `{message, webhooks, page, limit, total, totalPages}`
    Webhooks,
    /// `{total, page, limit, webhooks}`
    Bare,
    /// `{data: [...]}`: no totals at all.
    Data,
    /// `{data, meta: {page, limit, total, totalPages}}`
    DataMeta,
    /// `{data: {data, meta}}`
    Nested,
}

/// How an answer shows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    Omitted,
    /// `"********"`
    Stars,
    /// In clear text: what a client must survive without keeping or printing it.
    Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dates {
    /// `created_at`
    Snake,
    /// `createdAt`
    Camel,
}

/// Whether answers carry `X-RateLimit-Limit`, `-Remaining` and `-Reset`, and what the last one means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateHeaders {
    None,
    /// Unix time.
    Epoch,
    /// Seconds from now.
    Delta,
}

/// The name of the signature header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    /// `X-DialNexa-Signature`
    Dialnexa,
    /// `X-Nexa-Signature`
    Nexa,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyShape {
    /// `{event, call_id, ...}`
    Flat,
    /// `{event_type, payload: {call: {...}}}`
    Nested,
}

/// What becomes of an event that is made to happen while the webhook is inactive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inactive {
    Drop,
    /// It is delivered once the webhook is active again.
    Queue,
}

/// The request to a URL that was changed, before the first delivery. What is answered to it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    None,
    Unsigned,
    Signed,
}

/// What a retry is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetriesSigned {
    /// With what signed when the event happened: one signature for the whole life of a delivery.
    Old,
    /// With what signs when the retry is sent.
    New,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            envelope: Envelope::Root,
            list: ListShape::DataMeta,
            mask: Mask::Omitted,
            dates: Dates::Snake,
            rate_headers: RateHeaders::Epoch,
            rate_limit: 0,
            known_events_only: true,
            header: Header::Dialnexa,
            prefix: true,
            body: BodyShape::Flat,
            retries: 3,
            retries_signed: RetriesSigned::Old,
            backoff_ms: 500,
            timeout_ms: 5_000,
            queue_ms: 0,
            jitter_ms: 0,
            straggler_ms: 0,
            burst: 0,
            propagation_ms: 0,
            mixed_ms: 0,
            inactive: Inactive::Drop,
            verification: Verification::None,
        }
    }
}

impl Settings {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.max(1))
    }

    /// The time of one delivery in the queue.
    pub(super) fn queued(&self) -> Duration {
        let jitter = if self.jitter_ms == 0 { 0 } else { rand::random_range(0..=self.jitter_ms) };
        Duration::from_millis(self.queue_ms.saturating_add(jitter))
    }

    /// The pause before retry number `retry` (1 is the first).
    pub(super) fn backoff(&self, retry: u8) -> Duration {
        Duration::from_millis(self.backoff_ms.saturating_mul(1 << retry.saturating_sub(1).min(16)))
    }
}
