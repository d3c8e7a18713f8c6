//! What can be said of a webhook at one instant, for people and monitors. Never a secret.

use serde::{Deserialize, Serialize};

use super::diagnosis::Finding;
use crate::store::UnixMillis;

/// One webhook, as `status --json` prints it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub id: String,
    /// `idle`, `push`, `patch`, `drain`, `retire`, `abort`, `hold`.
    pub phase: String,
    /// The phase that a hold suspended.
    pub held_phase: Option<String>,
    /// The hold's name, such as `keystore-contested`.
    pub hold: Option<String>,
    /// `false` until a secret was adopted.
    pub adopted: bool,
    /// A genuine delivery has verified under the current secret.
    pub confirmed: bool,
    pub paused: bool,
    /// The kid of the current secret; `None` when unknown or missing.
    pub current: Option<String>,
    pub target: Option<String>,
    pub accepted: Vec<String>,
    /// Retired secrets that are accepted again: kid, and milliseconds left. They count while no rotation is under way.
    pub reaccepted: Vec<OpenStatus>,
    /// The newest retired secrets, oldest first.
    pub retired: Vec<String>,
    pub generation: u64,
    /// The number of the newest rotation, and of the newest one that was completed.
    pub rotation: u64,
    pub completed: u64,
    pub compromised: bool,
    pub cause: Option<String>,
    /// What it waits for, in one sentence.
    pub waiting_for: Option<String>,
    /// Since when it has been in this phase.
    pub since: Option<UnixMillis>,
    /// When the present wait is over at the latest, where that can be told.
    pub until: Option<UnixMillis>,
    /// Waiting unusually long.
    pub overdue: bool,
    /// What is wrong, in one word (`no-traffic`, `still-old`, `consumer-does-not-verify`, ...), and in a paragraph: the first
    /// of the findings, or the hold.
    pub diagnosis: Option<String>,
    pub detail: Option<String>,
    /// Everything that is wrong, the most urgent first.
    pub findings: Vec<Finding>,
    /// What a person can do now, as commands.
    pub ways_out: Vec<String>,
    pub replicas: Vec<ReplicaStatus>,
    pub unproven: bool,
    /// Secrets of PATCH requests that may still be applied: kid and milliseconds of quarantine left.
    pub open: Vec<OpenStatus>,
    pub drain_left_ms: Option<u64>,
    pub attempts: u64,
    /// The newest answer to a PATCH in this rotation: `applied`, `refused`, `ambiguous`, and one line about it.
    pub last_answer: Option<String>,
    pub last_answer_text: Option<String>,
    /// A clear 200 came back in this rotation.
    pub patched: bool,
    pub keystore_place: String,
    pub keystore_trouble: Option<String>,
    pub provider_trouble: Option<String>,
    pub next_due: Option<UnixMillis>,
    pub last_completed_at: Option<UnixMillis>,
    /// The newest delivery that verified: when, under which kid, through which door.
    pub last_delivery_at: Option<UnixMillis>,
    pub last_delivery_kid: Option<String>,
    pub last_delivery_door: Option<String>,
    /// The usual distance between two deliveries, and from how long a silence on it is unusual.
    pub usual_gap_ms: Option<u64>,
    pub unusual_silence_ms: u64,
    pub deliveries: DeliveryCounts,
    /// When each phase of the newest rotation began: phase name and time.
    pub timeline: Vec<(String, UnixMillis)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub name: String,
    /// How it is asked: `probe`, `read-back`, `status-file`.
    pub how: String,
    /// Its address is no longer listed.
    pub vanished: bool,
    /// `accepts`, `refuses`, `inconclusive`, `does-not-verify`, `unreachable`, `not asked yet`.
    pub verdict: String,
    /// What it answered: `current 400, target 401, random key 401`.
    pub answer: String,
    pub since: Option<UnixMillis>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStatus {
    pub kid: String,
    pub left_ms: u64,
}

/// Deliveries seen since this process began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryCounts {
    pub current: u64,
    pub target: u64,
    pub other: u64,
    pub retired: u64,
    pub unverified: u64,
    pub rejected_by_consumer: u64,
    pub probes: u64,
    /// Answered by a gateway of ours (413, 502, 503, 504) in place of the consumer.
    #[serde(default)]
    pub lost: u64,
    /// Own synthetic checks (`verify.ignore`).
    pub ignored: u64,
}

impl Status {
    /// Whether a monitor should call a person: 0 all well, 1 a person is needed, 3 waiting unusually long.
    pub fn exit_code(&self) -> u8 {
        match () {
            () if self.hold.is_some() || !self.adopted || self.findings.iter().any(|finding| finding.person) => 1,
            () if self.overdue => 3,
            () => 0,
        }
    }
}
