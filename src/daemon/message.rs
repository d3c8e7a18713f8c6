use tokio::sync::oneshot;

use super::members::Dismissal;
use crate::{
    config::Door,
    evidence::{Facts, GatewayCounts, Reason, Sighting, StatusCounts},
    rotation::{Event, Note, Refused},
    steps::{generate::Fresh, push::Reading},
    store::Probe,
};

/// What reaches the writer. A webhook is its place in the configuration.
pub(super) enum Message {
    Event {
        webhook: usize,
        event: Event,
        extras: Box<Extras>,
        reply: Option<oneshot::Sender<Result<u64, Refused>>>,
    },
    /// Probe bodies to be on record before they are sent.
    Probes {
        webhook: usize,
        rows: Vec<Probe>,
        done: oneshot::Sender<()>,
    },
    Sighting(Box<Sighting>),
    /// Who is listed by `preflight.replicas` now.
    Members {
        webhook: usize,
        listed: Vec<String>,
    },
    Dismiss(Dismissal),
    /// What the keystore was seen to hold between rotations.
    KeystoreSeen {
        webhook: usize,
        /// What was on record when it was asked for.
        generation: u64,
        reading: Reading,
    },
    /// One of a team's own synthetic checks.
    SetAside {
        webhook: String,
        body_sha256: [u8; 32],
    },
    Unverified {
        webhook: String,
        door: Door,
        reason: Reason,
        facts: Box<Facts>,
    },
    GatewayCounts {
        webhook: String,
        counts: GatewayCounts,
    },
    StatusFiles {
        webhook: usize,
        files: Vec<(StatusCounts, u64)>,
    },
    /// A line for the journal alone.
    Audit {
        webhook: usize,
        note: Note,
        actor: String,
        done: oneshot::Sender<()>,
    },
    /// The schedule is to be looked at.
    Wake,
}

/// What an answer brings beside the event: values to be sealed in the same commit, and words for people.
#[derive(Default)]
pub(super) struct Extras {
    pub secrets: Vec<Fresh>,
    pub actor: Option<String>,
    pub words: Option<Words>,
}

pub(super) enum Words {
    /// `None`: the trouble is over.
    Keystore(Option<String>),
    Provider(Option<String>),
    Replica(crate::rotation::ReplicaId, String),
    Attempt(u64, String),
    Webhook {
        url: Option<String>,
        events: Vec<String>,
    },
}
