use serde::{Deserialize, Serialize};

use super::Phase;
use crate::secret::Kid;

/// A length of time in milliseconds. The core counts credit, it never reads a clock.
pub type Millis = u64;

/// Everything about one webhook that survives a crash. One row in the store.
///
/// The record over-approximates the world: every secret that DialNexa signs with, or that a request still under way may
/// make it sign with, is in `accepted`; and what is in `accepted` is in the keystore of every replica before a PATCH
/// carries it. Everything else here serves to keep that sentence true.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Rises by one with every commit.
    pub seq: u64,
    /// The timings that the running rotation goes by. Taken from the configuration while idle; never shortened under way.
    pub policy: Policy,
    /// A digest of what must not move under a rotation: the webhook's id, DialNexa's address, the keystore's place.
    pub identity: u64,
    /// What DialNexa is believed to sign with.
    pub current: Current,
    /// A genuine delivery has verified under `current`.
    pub confirmed: bool,
    /// What the keystore is to hold.
    pub accepted: KidSet,
    /// Retired secrets that a person accepts again for a while. Never the target of a PATCH.
    pub reaccepted: Vec<Reaccepted>,
    /// The number of the keystore content that holds exactly `accepted` and `reaccepted`.
    pub generation: u64,
    /// The newest generation that was read back from the keystore.
    pub kept: u64,
    /// Secrets of PATCH requests that may still be applied, whatever was answered.
    pub open: Vec<Open>,
    /// Attempts made so far; the next one's number.
    pub attempts: u64,
    /// Rotations begun so far; the newest one's number.
    pub rotations: u64,
    /// The newest retired secrets, oldest first. None of them is ever a target again.
    pub retired: Vec<Retired>,
    /// A person asked for nothing new to be begun.
    pub paused: bool,
    pub phase: Phase,
}

/// What DialNexa is believed to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Current {
    /// Nothing was adopted yet.
    Missing,
    /// Adopted with `--unknown`: the consumer knows it, hookturn does not, so there is no way back to it.
    Unknown,
    Known(Kid),
}

impl Current {
    pub fn kid(self) -> Option<Kid> {
        match self {
            Current::Known(kid) => Some(kid),
            Current::Missing | Current::Unknown => None,
        }
    }
}

/// A secret whose PATCH may still be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Open {
    pub kid: Kid,
    /// Quarantine credit still to be gathered since its latest attempt was over.
    pub left: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reaccepted {
    pub kid: Kid,
    pub left: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retired {
    pub kid: Kid,
    /// Retired because it had leaked: it may never be accepted again.
    pub compromised: bool,
}

/// The timings and rules of one webhook, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Q: a PATCH is applied within this time of the end of its exchange, or never.
    pub quarantine: Millis,
    /// D: a delivery reaches its end within this time of being signed.
    pub drain: Millis,
    /// The consumer's refresh period, honoured after every keystore write.
    pub wait: Millis,
    /// The shortest and the longest time between two PATCHes of one target.
    pub repeat_min: Millis,
    pub repeat_max: Millis,
    /// Distinct target-signed bodies that make the switch proof, and the least time from the first of them to the deciding one.
    pub min_deliveries: u32,
    pub min_span: Millis,
    /// How many secrets the keystore can hold; `None` is any number.
    pub slots: Option<u8>,
    pub on_reject: OnReject,
    /// Go on without an acceptance proof where no replica can give one.
    pub unproven: bool,
}

impl Policy {
    /// Whether the keystore has room for so many secrets.
    pub fn fits(&self, kids: usize) -> bool {
        self.slots.is_none_or(|slots| kids <= usize::from(slots))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReject {
    /// PATCH the previous secret back while both are accepted, then hold.
    SwitchBack,
    /// Hold at once.
    Hold,
}

/// A small ordered set of key ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KidSet(Vec<Kid>);

impl KidSet {
    pub fn new() -> KidSet {
        KidSet(Vec::new())
    }

    pub fn contains(&self, kid: Kid) -> bool {
        self.0.binary_search(&kid).is_ok()
    }

    pub fn insert(&mut self, kid: Kid) -> bool {
        match self.0.binary_search(&kid) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, kid);
                true
            }
        }
    }

    pub fn remove(&mut self, kid: Kid) -> bool {
        match self.0.binary_search(&kid) {
            Ok(at) => {
                self.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Kid> + '_ {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn union(&self, other: &KidSet) -> KidSet {
        self.iter().chain(other.iter()).collect()
    }

    pub fn without(&self, other: &KidSet) -> KidSet {
        self.iter().filter(|kid| !other.contains(*kid)).collect()
    }
}

impl FromIterator<Kid> for KidSet {
    fn from_iter<I: IntoIterator<Item = Kid>>(kids: I) -> KidSet {
        let mut kids: Vec<Kid> = kids.into_iter().collect();
        kids.sort_unstable();
        kids.dedup();
        KidSet(kids)
    }
}

impl Record {
    /// A webhook that hookturn has just heard of.
    pub fn unadopted(policy: Policy, identity: u64) -> Record {
        Record {
            seq: 0,
            policy,
            identity,
            current: Current::Missing,
            confirmed: false,
            accepted: KidSet::new(),
            reaccepted: Vec::new(),
            generation: 0,
            kept: 0,
            open: Vec::new(),
            attempts: 0,
            rotations: 0,
            retired: Vec::new(),
            paused: false,
            phase: Phase::Idle,
        }
    }

    /// Another content of the keystore has another number. At the last number there is (somebody wrote it into the keystore)
    /// it stays: contents are compared by their keys too.
    pub(super) fn next_generation(&mut self) {
        self.generation = self.generation.saturating_add(1);
    }

    /// What the keystore is to hold: `accepted` and what was reaccepted.
    pub fn keystore_kids(&self) -> KidSet {
        self.accepted.iter().chain(self.reaccepted.iter().map(|r| r.kid)).collect()
    }

    /// Whether an attempt of a secret other than `target` may still be applied.
    pub fn foreign_open(&self, target: Kid) -> bool {
        self.open.iter().any(|open| open.kid != target)
    }

    pub fn is_retired(&self, kid: Kid) -> bool {
        self.retired.iter().any(|retired| retired.kid == kid)
    }
}
