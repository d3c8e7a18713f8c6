use serde::{Deserialize, Serialize};

use super::{KidSet, Millis};
use crate::secret::Kid;

/// Where a webhook is. What belongs to a phase lives in it: while idle there is no target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No rotation is under way.
    Idle,
    /// Awaiting that every replica accepts the target.
    Push(Rotation),
    /// The target was, or may have been, sent. Awaiting a genuine delivery signed with it.
    Patch(Rotation, Patching),
    /// The target signs. Awaiting that deliveries signed before have reached their end.
    Drain(Rotation, Draining),
    /// Awaiting that every replica accepts the target only.
    Retire(Rotation, Shrinking),
    /// Given up before anything was sent. Awaiting that no replica accepts the target any more.
    Abort(Rotation, Shrinking),
    /// A person is needed. Nothing is sent and nothing removed.
    Hold(Hold, Box<Phase>),
}

/// One run of the workflow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rotation {
    pub number: u64,
    pub target: Kid,
    pub cause: Cause,
    /// The current secret has leaked: no drain, and no way back to it.
    pub compromised: bool,
    /// How often somebody else took our content out of the keystore.
    pub losses: u8,
    /// Candidates given up on the way that were never sent; replicas must forget them too before the rotation is over.
    pub dropped: KidSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    Schedule,
    Demand,
    /// A person turned back to the previous secret.
    Rollback,
    /// The consumer refused a genuine delivery signed with the target.
    SwitchBack,
    Supersede,
}

/// What is known of the target while it is being sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Patching {
    pub freshness: Freshness,
    /// Attempts with this target in this rotation.
    pub sent: u32,
    /// Quarantine credit still to be gathered since the latest of them that was not definitely refused.
    #[serde(default)]
    pub doubt: Millis,
    /// A clear 200 came back for an attempt sent while no foreign attempt was open.
    pub settled: bool,
    /// A clear 200 came back for some attempt.
    pub answered: bool,
    /// Distinct genuine bodies seen under the target so far, and the credit since the first of them.
    pub seen: u32,
    pub span: Millis,
}

/// Whether a delivery signed with the target says something about now. A secret that DialNexa has had before may come back in
/// deliveries signed long ago (the ABA problem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freshness {
    /// It does.
    Fresh,
    /// It does not: a request with another secret may still be applied.
    ForeignOpen,
    /// It will, once deliveries signed before have died out.
    Waiting { left: Millis },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Draining {
    /// Drain credit still to be gathered.
    pub left: Millis,
    /// Kept from the patch phase: whether the 200 counts, for an emergency.
    pub settled: bool,
    /// Deliveries have verified under the target (not so when an emergency went by the 200 alone).
    pub proven: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shrinking {
    /// What replicas must no longer accept.
    pub removed: KidSet,
    /// Deliveries have verified under the secret that stays.
    pub proven: bool,
}

/// Why a person is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Somebody else keeps writing the keystore.
    KeystoreContested,
    /// The keystore holds keys that hookturn can neither keep nor drop safely.
    KeystoreForeign,
    /// The store, or the keystore, is older or newer than the other: a backup was restored, or somebody wrote by hand.
    Restored,
    /// DialNexa refuses this value of the secret.
    TargetRefused,
    /// DialNexa refuses the API key.
    ApiKeyRefused,
    /// DialNexa has no such webhook.
    WebhookGone,
    /// A consumer refused a genuine delivery that was signed with the target.
    RejectedByConsumer,
    /// The webhook's identity moved in the configuration while a rotation was under way.
    ConfigDrift,
}

impl Phase {
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Push(..) => "push",
            Phase::Patch(..) => "patch",
            Phase::Drain(..) => "drain",
            Phase::Retire(..) => "retire",
            Phase::Abort(..) => "abort",
            Phase::Hold(..) => "hold",
        }
    }

    /// The rotation under way, also while held.
    pub fn rotation(&self) -> Option<&Rotation> {
        match self {
            Phase::Idle => None,
            Phase::Push(r) | Phase::Patch(r, _) | Phase::Drain(r, _) | Phase::Retire(r, _) | Phase::Abort(r, _) => Some(r),
            Phase::Hold(_, was) => was.rotation(),
        }
    }

    pub fn rotation_mut(&mut self) -> Option<&mut Rotation> {
        match self {
            Phase::Idle => None,
            Phase::Push(r) | Phase::Patch(r, _) | Phase::Drain(r, _) | Phase::Retire(r, _) | Phase::Abort(r, _) => Some(r),
            Phase::Hold(_, was) => was.rotation_mut(),
        }
    }

    /// The phase itself, or the one that a hold suspended.
    pub fn underlying(&self) -> &Phase {
        match self {
            Phase::Hold(_, was) => was,
            other => other,
        }
    }
}

impl Hold {
    pub const ALL: [Hold; 8] = [
        Hold::KeystoreContested,
        Hold::KeystoreForeign,
        Hold::Restored,
        Hold::TargetRefused,
        Hold::ApiKeyRefused,
        Hold::WebhookGone,
        Hold::RejectedByConsumer,
        Hold::ConfigDrift,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Hold::KeystoreContested => "keystore-contested",
            Hold::KeystoreForeign => "keystore-foreign",
            Hold::Restored => "restored",
            Hold::TargetRefused => "target-refused",
            Hold::ApiKeyRefused => "api-key-refused",
            Hold::WebhookGone => "webhook-gone",
            Hold::RejectedByConsumer => "rejected-by-consumer",
            Hold::ConfigDrift => "config-drift",
        }
    }
}
