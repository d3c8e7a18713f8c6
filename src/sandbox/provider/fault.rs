//! Faults: what the provider does wrong, and how each is put together from a few orthogonal parts.
//!
//! A new fault is one variant of [`Fault`] and one arm of [`Fault::plan`].

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

/// One thing that goes wrong with a request. In JSON: `{"kind": "apply-then-drop", "cut": "half"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Applied; the answer is lost.
    ApplyThenDrop {
        #[serde(default)]
        cut: Cut,
    },
    /// Not applied; no answer.
    DropBeforeApply {
        #[serde(default)]
        cut: Cut,
    },
    /// The answer comes (or does not) now, the effect `ms` later.
    ApplyLate {
        ms: u64,
        #[serde(default)]
        answer: LateAnswer,
    },
    /// Applied and answered, and applied once more `ms` later, whatever was applied in between.
    DuplicateLate { ms: u64 },
    /// 429, not applied.
    RateLimited {
        /// Seconds; without it the answer has no `Retry-After`.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// 500 although applied.
    ErrorAfterApply,
    /// 500, not applied.
    ErrorBeforeApply,
    /// 503, not applied.
    Unavailable,
    /// 200 with the usual body, and nothing is applied.
    LyingOk,
    /// 200; the other fields are applied, the secret is not.
    SecretIgnored,
    /// Applied, but only the first `bytes` bytes of the secret.
    SecretTruncated { bytes: usize },
    /// Applied at once, answered after `ms`.
    Slow { ms: u64 },
    /// Applied; the answer takes `ms` for each of its first bytes, so that a client with a time-out per read only waits for ever.
    Trickle { ms: u64 },
    /// Applied; 200 with a body that is not JSON.
    Garbage,
    /// 307 to another address, not applied.
    Redirect { to: String },
    /// 400: the value is refused.
    ValueRefused,
    /// 401, not applied.
    Unauthorized,
    /// 403, not applied.
    Forbidden,
    /// 404, not applied.
    NotFound,
    /// Any combination of the parts.
    Custom {
        apply: Apply,
        answer: Answer,
        #[serde(default)]
        answer_after_ms: u64,
    },
}

/// How an answer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// The connection is closed without a byte.
    #[default]
    Close,
    /// The head and half of the body come, then the connection is closed.
    Half,
    /// TCP reset.
    Reset,
}

/// What comes back for a request that is applied late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LateAnswer {
    Ok,
    #[default]
    GatewayTimeout,
    /// Nothing, for longer than any client waits.
    Hang,
    Reset,
}

/// What happens to the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apply {
    Now,
    Never,
    LateMs(u64),
    /// Now, and again so much later.
    AgainMs(u64),
    WithoutSecret,
    TruncatedTo(usize),
}

/// What goes back to the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What it would be if everything had been applied.
    Honest,
    Error {
        status: u16,
        #[serde(default)]
        retry_after: Option<u64>,
    },
    None(Cut),
    Trickle {
        ms: u64,
    },
    Garbage,
    Redirect {
        to: String,
    },
}

/// A fault taken apart: what is done, what is said, and when it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) apply: Apply,
    pub(super) answer: Answer,
    pub(super) answer_after: Duration,
}

/// Longer than any client waits, short enough that a forgotten connection does not stay for the day.
const HANG: Duration = Duration::from_secs(600);

impl Plan {
    pub(super) fn honest() -> Plan {
        Plan::of(Apply::Now, Answer::Honest)
    }

    fn of(apply: Apply, answer: Answer) -> Plan {
        Plan { apply, answer, answer_after: Duration::ZERO }
    }

    fn after(self, answer_after: Duration) -> Plan {
        Plan { answer_after, ..self }
    }
}

impl Fault {
    /// The fault as its parts.
    pub(super) fn plan(&self) -> Plan {
        let error = |status| Answer::Error { status, retry_after: None };
        match self {
            Fault::ApplyThenDrop { cut } => Plan::of(Apply::Now, Answer::None(*cut)),
            Fault::DropBeforeApply { cut } => Plan::of(Apply::Never, Answer::None(*cut)),
            Fault::ApplyLate { ms, answer: LateAnswer::Ok } => Plan::of(Apply::LateMs(*ms), Answer::Honest),
            Fault::ApplyLate { ms, answer: LateAnswer::GatewayTimeout } => Plan::of(Apply::LateMs(*ms), error(504)),
            Fault::ApplyLate { ms, answer: LateAnswer::Hang } => {
                Plan::of(Apply::LateMs(*ms), Answer::None(Cut::Close)).after(HANG)
            }
            Fault::ApplyLate { ms, answer: LateAnswer::Reset } => Plan::of(Apply::LateMs(*ms), Answer::None(Cut::Reset)),
            Fault::DuplicateLate { ms } => Plan::of(Apply::AgainMs(*ms), Answer::Honest),
            Fault::RateLimited { retry_after } => {
                Plan::of(Apply::Never, Answer::Error { status: 429, retry_after: *retry_after })
            }
            Fault::ErrorAfterApply => Plan::of(Apply::Now, error(500)),
            Fault::ErrorBeforeApply => Plan::of(Apply::Never, error(500)),
            Fault::Unavailable => Plan::of(Apply::Never, error(503)),
            Fault::LyingOk => Plan::of(Apply::Never, Answer::Honest),
            Fault::SecretIgnored => Plan::of(Apply::WithoutSecret, Answer::Honest),
            Fault::SecretTruncated { bytes } => Plan::of(Apply::TruncatedTo(*bytes), Answer::Honest),
            Fault::Slow { ms } => Plan::honest().after(Duration::from_millis(*ms)),
            Fault::Trickle { ms } => Plan::of(Apply::Now, Answer::Trickle { ms: *ms }),
            Fault::Garbage => Plan::of(Apply::Now, Answer::Garbage),
            Fault::Redirect { to } => Plan::of(Apply::Never, Answer::Redirect { to: to.clone() }),
            Fault::ValueRefused => Plan::of(Apply::Never, error(400)),
            Fault::Unauthorized => Plan::of(Apply::Never, error(401)),
            Fault::Forbidden => Plan::of(Apply::Never, error(403)),
            Fault::NotFound => Plan::of(Apply::Never, error(404)),
            Fault::Custom { apply, answer, answer_after_ms } => {
                Plan::of(*apply, answer.clone()).after(Duration::from_millis(*answer_after_ms))
            }
        }
    }
}

/// Which requests a fault waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    #[default]
    Patch,
    Get,
    List,
}

/// A fault in the queue. In JSON: `{"fault": {...}, "on": "patch", "times": 2}`, or `"sticky": true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    pub fault: Fault,
    #[serde(default)]
    pub on: Operation,
    /// How many requests it spoils.
    #[serde(default = "once")]
    pub times: u32,
    /// Every request, until the queue is cleared; one-shot faults come first.
    #[serde(default)]
    pub sticky: bool,
}

fn once() -> u32 {
    1
}

impl Injection {
    /// Spoils the next PATCH.
    pub fn once(fault: Fault) -> Injection {
        Injection { fault, on: Operation::Patch, times: 1, sticky: false }
    }

    /// Spoils every PATCH until the queue is cleared.
    pub fn sticky(fault: Fault) -> Injection {
        Injection { sticky: true, ..Injection::once(fault) }
    }

    /// The same for another kind of request.
    pub fn on(self, on: Operation) -> Injection {
        Injection { on, ..self }
    }

    /// The same for so many requests.
    pub fn times(self, times: u32) -> Injection {
        Injection { times, ..self }
    }
}

/// The faults to come, in order.
#[derive(Debug, Default)]
pub(super) struct FaultQueue(VecDeque<Injection>);

impl FaultQueue {
    pub(super) fn push(&mut self, injection: Injection) {
        if injection.sticky || injection.times > 0 {
            self.0.push_back(injection);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn waiting(&self) -> Vec<Injection> {
        self.0.iter().cloned().collect()
    }

    /// The fault for the next request of this kind: the oldest one-shot one, else the newest sticky one.
    pub(super) fn take(&mut self, on: Operation) -> Option<Fault> {
        if let Some(at) = self.0.iter().position(|i| i.on == on && !i.sticky) {
            let injection = &mut self.0[at];
            injection.times -= 1;
            let (fault, spent) = (injection.fault.clone(), injection.times == 0);
            if spent {
                self.0.remove(at);
            }
            return Some(fault);
        }
        self.0.iter().rfind(|i| i.on == on).map(|i| i.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shot_faults_come_in_order_and_before_a_sticky_one() {
        let mut queue = FaultQueue::default();
        queue.push(Injection::sticky(Fault::Unavailable));
        queue.push(Injection::once(Fault::LyingOk).times(2));
        queue.push(Injection::once(Fault::Garbage));
        queue.push(Injection::once(Fault::Forbidden).on(Operation::Get));
        let taken: Vec<_> = (0..5).filter_map(|_| queue.take(Operation::Patch)).collect();
        assert_eq!(taken, [Fault::LyingOk, Fault::LyingOk, Fault::Garbage, Fault::Unavailable, Fault::Unavailable]);
        assert_eq!(queue.take(Operation::Get), Some(Fault::Forbidden));
        assert_eq!(queue.take(Operation::Get), None);
    }

    #[test]
    fn a_fault_reads_from_the_json_of_the_control_api() {
        let read = |text| serde_json::from_str::<Injection>(text).map_err(|e| e.to_string());
        let cut = Fault::ApplyThenDrop { cut: Cut::Half };
        assert_eq!(read(r#"{"fault":{"kind":"apply-then-drop","cut":"half"}}"#), Ok(Injection::once(cut)));
        let late = Fault::ApplyLate { ms: 40, answer: LateAnswer::GatewayTimeout };
        assert_eq!(read(r#"{"fault":{"kind":"apply-late","ms":40},"sticky":true}"#), Ok(Injection::sticky(late)));
        let custom = r#"{"fault":{"kind":"custom","apply":{"late-ms":5},"answer":{"error":{"status":502}}}}"#;
        assert!(read(custom).is_ok(), "{:?}", read(custom));
        assert!(read(r#"{"fault":{"kind":"apply-then-drop","cot":"half"}}"#).is_err());
    }
}
