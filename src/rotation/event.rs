use serde::{Deserialize, Serialize};

use super::{Cause, KidSet, Millis, Policy};
use crate::secret::Kid;

/// A replica's number in this process. The shell knows its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u16);

/// Everything that can happen to a webhook. Closed: the whole contract with the shell is this and [`super::Effect`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A process took the webhook over; everything volatile is forgotten. The first event of every life.
    Boot {
        policy: Policy,
        identity: u64,
        /// The anchor says that the store is older than what was already done.
        restored: bool,
        /// Time since the last commit, where the same boot of the machine can vouch for it.
        dark: Millis,
    },
    /// Time went by. `observed` is the part of it in which every evidence door was open.
    Tick {
        elapsed: Millis,
        observed: Millis,
    },
    /// Which replicas there are. Sent once after boot and whenever it changes.
    Roster {
        replicas: Vec<ReplicaId>,
    },
    /// A person or the schedule asks for something.
    Op(Op),
    /// What the keystore holds, read back after a write or on a look.
    Keystore {
        call: u64,
        found: Found,
    },
    /// The keystore could not be read or written. Transient: tried again.
    KeystoreFailed {
        call: u64,
    },
    /// Between rotations the keystore was seen to hold something older than what was confirmed.
    KeystoreDoubted,
    /// One replica's answer in a round of questions.
    Replica {
        round: u64,
        replica: ReplicaId,
        verdict: Verdict,
    },
    /// Every replica of the round has answered or timed out.
    RoundEnded {
        round: u64,
    },
    /// The answer to a GET of the webhook.
    Webhook {
        call: u64,
        answer: Inspection,
    },
    /// A connection for one attempt is open; nothing was sent on it yet.
    Connected {
        call: u64,
    },
    ConnectFailed {
        call: u64,
    },
    /// How the attempt ended.
    Patched {
        attempt: u64,
        answer: PatchAnswer,
    },
    /// A delivery verified under a key of this webhook.
    Seen(Seen),
}

/// What a person or the schedule asks for. New key ids come in with it: the core makes no randomness.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Take `kid` (or a secret that hookturn is not told) for what DialNexa signs with. `generation` is what the keystore
    /// holds already with exactly this key, so that the others are gone; `None` makes a new one. `replace`: this key takes the
    /// place of the others. Either way what may still be applied stays.
    Adopt {
        kid: Option<Kid>,
        generation: Option<u64>,
        replace: bool,
    },
    Rotate {
        fresh: Kid,
        cause: Cause,
        compromised: bool,
        unconfirmed: bool,
    },
    /// The current secret of the rotation under way has leaked.
    Compromise,
    Abort,
    Rollback,
    Supersede {
        fresh: Kid,
    },
    /// Accept a retired secret again for a while.
    Reaccept {
        kid: Kid,
        credit: Millis,
    },
    Pause,
    Resume,
}

/// What a keystore was found to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Found {
    /// 0: there is no content.
    pub generation: u64,
    /// Kids that hookturn knows and that are there with the very value that hookturn has.
    pub kids: KidSet,
    /// Kids that hookturn did not know and whose value it has now sealed.
    pub strangers: KidSet,
    /// There is something that cannot be carried over: an unknown kid without a value, or a known kid with another value.
    pub opaque: bool,
}

/// Whether a replica accepts what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was shown to accept exactly what it should, and to refuse what it should.
    Accepts,
    /// It answers, and does not accept the target (or still accepts what was removed).
    Refuses,
    /// Its answers do not tell.
    Inconclusive,
    /// It accepts a random key.
    DoesNotVerify,
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inspection {
    Active,
    Inactive,
    Gone,
    ApiKeyRefused,
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchAnswer {
    /// A clear 200. A hint, never a proof.
    Applied,
    /// Definitely not applied: the value (400, 422).
    ValueRefused,
    /// Definitely not applied: the API key (401, 403).
    ApiKeyRefused,
    /// Definitely not applied: no such webhook (404).
    WebhookGone,
    /// Definitely not applied: too many requests; asked to wait so long.
    Limited { wait: Millis },
    /// Time-out, reset, 5xx, half an answer: it may have been applied, or may be yet.
    Ambiguous { wait: Millis },
}

/// A genuine delivery, or one of hookturn's own probes that came back through a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    pub kid: Kid,
    /// This body was not seen before.
    pub new_body: bool,
    /// hookturn signed this body itself.
    pub probe: bool,
    /// What the consumer answered, where the door knows: 2xx, or a refusal of the signature.
    pub accepted: Option<bool>,
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Event::Boot { .. } => "boot",
            Event::Tick { .. } => "tick",
            Event::Roster { .. } => "roster",
            Event::Op(op) => op.name(),
            Event::Keystore { .. } => "keystore",
            Event::KeystoreFailed { .. } => "keystore-failed",
            Event::KeystoreDoubted => "keystore-doubted",
            Event::Replica { .. } => "replica",
            Event::RoundEnded { .. } => "round-ended",
            Event::Webhook { .. } => "webhook",
            Event::Connected { .. } => "connected",
            Event::ConnectFailed { .. } => "connect-failed",
            Event::Patched { .. } => "patched",
            Event::Seen(..) => "seen",
        }
    }
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Adopt { .. } => "adopt",
            Op::Rotate { .. } => "rotate",
            Op::Compromise => "compromise",
            Op::Abort => "abort",
            Op::Rollback => "rollback",
            Op::Supersede { .. } => "supersede",
            Op::Reaccept { .. } => "reaccept",
            Op::Pause => "pause",
            Op::Resume => "resume",
        }
    }
}
