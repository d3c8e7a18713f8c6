//! What DialNexa's answers mean. Pure: an answer in, a meaning out; no clock, no socket.
//!
//! DialNexa's pages contradict each other on envelopes, lists, field names, errors and rate headers, and only a live account
//! could settle it. So every documented shape is read, and what is not certain is called ambiguous: keeping both secrets and
//! sending the same value again does no harm, taking "perhaps" for "no" loses deliveries.

mod envelope;
mod patch;
mod rate;
mod refusal;
mod text;

pub use envelope::{page, webhook};
pub use patch::{patch_report, patch_unanswered};
pub use rate::{MAX_WAIT, retry_after, wait};
pub use refusal::accept;
pub use text::{MAX_TEXT, for_humans, request_id};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// An answer whose head has arrived. Not printable: a body may hold a secret.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

pub enum Body {
    Whole(Bytes),
    /// The rest never came, or was too long to be read; why, for a person.
    Cut(String),
}

impl Reply {
    /// The body as JSON; else what is wrong with it, without quoting it.
    pub(super) fn json(&self) -> Result<serde_json::Value, String> {
        match &self.body {
            Body::Cut(why) => Err(why.clone()),
            Body::Whole(bytes) if bytes.is_empty() => Err("the body is empty".to_owned()),
            Body::Whole(bytes) => {
                serde_json::from_slice(bytes).map_err(|_| format!("the body ({} bytes) is not JSON", bytes.len()))
            }
        }
    }
}
