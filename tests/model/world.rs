//! What the model knows: the real record and volatile state of the core, and an abstract world around them.
//!
//! A delivery is signed as soon as it can be, and a request or a delivery under way stays until time must have ended it: what
//! may still happen is then a superset of what any quicker end would leave.

use std::sync::LazyLock;

use hookturn::{
    rotation::{Current, Draining, Freshness, Hold, KidSet, Patching, Phase, Record, Volatile},
    secret::Kid,
};

/// How many key ids exist at once. Dead ones are used again, so the number of rotations is not bounded by it.
pub const KIDS: usize = 5;
pub const REPLICAS: usize = 3;

/// A set of key ids, bit by bit.
pub type Mask = u8;

/// In a keystore's content: something that hookturn cannot carry over.
pub const OPAQUE: Mask = 1 << 7;

static NAMES: LazyLock<[Kid; KIDS]> = LazyLock::new(|| ["a", "b", "c", "d", "e"].map(|name| Kid::parse(name).expect("a kid")));

pub fn kid(index: u8) -> Kid {
    NAMES[usize::from(index)]
}

pub fn index(kid: Kid) -> u8 {
    kid.as_str().as_bytes()[0] - b'a'
}

pub fn bit(index: u8) -> Mask {
    1 << index
}

pub fn bit_of(kid: Kid) -> Mask {
    bit(index(kid))
}

pub fn mask(kids: &KidSet) -> Mask {
    kids.iter().fold(0, |mask, kid| mask | bit_of(kid))
}

pub fn set(mask: Mask) -> KidSet {
    each(mask).map(kid).collect()
}

pub fn each(mask: Mask) -> impl Iterator<Item = u8> {
    (0..KIDS as u8).filter(move |index| mask & bit(*index) != 0)
}

/// What a keystore holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Content {
    pub generation: u64,
    pub kids: Mask,
}

/// The core and everything around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub record: Record,
    pub volatile: Volatile,
    pub world: World,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// What DialNexa signs with.
    pub provider: u8,
    /// For each kid, how much longer a PATCH with it may still be applied. 0: none is under way.
    pub net: [u8; KIDS],
    pub keystore: Content,
    /// What each replica has read from the keystore. It never goes back: that is an assumption.
    pub replicas: [Mask; REPLICAS],
    /// Which replicas there are.
    pub serving: u8,
    /// What every consumer accepts from somewhere else than the keystore: the secret that hookturn was not told.
    pub outside: Mask,
    /// Deliveries under way that existed when the present drain (or wait for freshness) began, by the key that signed them.
    pub elder: Mask,
    /// How much longer they may take.
    pub elder_life: u8,
    /// Deliveries under way that were signed since.
    pub younger: Mask,
    /// Keys whose material the store has.
    pub known: Mask,
    /// What a person has said to be leaked, unless he gave the emergency up.
    pub leaked: Mask,
    /// Replicas, and the keystore as the highest bit, that vouched for the target since the retire was due.
    pub vouched: u8,
    /// The same, since anything was last known to have changed.
    pub shown: u8,
    pub read: Option<u64>,
    /// A replica was first shown to accept what it should after that read was begun.
    pub early: bool,
    pub write: Option<Write>,
    pub ask: Option<Ask>,
    pub inspect: Option<u64>,
    pub connect: Option<u64>,
    pub sent: Option<Sent>,
    /// Targets that a daemon which was taken over has yet to send, where nothing fences it.
    pub stale: Mask,
    /// Writes that nobody waits for and that may still reach the keystore.
    pub stray: Vec<Content>,
    pub backup: Option<Box<Backup>>,
    pub restored: bool,
    /// What the keystore held before it held something else, for somebody to put back.
    pub older: Option<Mask>,
    /// How often somebody may still write the keystore.
    pub meddling: u8,
    /// Foreign keys that somebody may still add to the keystore.
    pub strangers: u8,
    /// Somebody else's content has not been put right everywhere yet.
    pub tainted: bool,
    /// Nor has every replica forgotten what somebody else has put there.
    pub leftover: bool,
    /// Somebody else has ever written the keystore.
    pub meddled: bool,
    /// How often somebody took our content away and was noticed, since the rotation began or a person looked.
    pub taken: u8,
    /// What DialNexa signs with was set by hand, and no PATCH was applied since.
    pub by_hand: bool,
    /// What is current was said by a person, while a PATCH with another could still land.
    pub said: bool,
    /// How often DialNexa's secret may still be changed by hand.
    pub hands: u8,
    /// Keys of deliveries that a hand is to blame for.
    pub hand: Mask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Write {
    pub call: u64,
    pub content: Content,
    pub applied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    pub round: u64,
    pub whom: u8,
    pub accept: u8,
    pub refuse: Mask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sent {
    pub attempt: u64,
    pub kid: u8,
    pub landed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backup {
    pub record: Record,
    pub known: Mask,
}

/// In `vouched` and `shown`: the keystore itself.
pub const KEYSTORE: u8 = 1 << 7;

impl World {
    /// Kids whose PATCH may still be applied.
    pub fn in_net(&self) -> Mask {
        (0..KIDS as u8).filter(|kid| self.net[usize::from(*kid)] > 0).fold(0, |mask, kid| mask | bit(kid))
    }

    pub fn flying(&self) -> Mask {
        self.elder | self.younger
    }

    pub fn each_serving(&self) -> impl Iterator<Item = u8> + use<> {
        let serving = self.serving;
        (0..REPLICAS as u8).filter(move |r| serving & (1 << r) != 0)
    }

    /// What every replica accepts.
    pub fn everywhere(&self) -> Mask {
        self.each_serving().fold(Mask::MAX, |all, r| all & self.accepts(r))
    }

    pub fn accepts(&self, replica: u8) -> Mask {
        self.replicas[usize::from(replica)] | self.outside
    }

    /// All of `shown` and `vouched`.
    pub fn everybody(&self) -> u8 {
        KEYSTORE | self.serving
    }
}

impl State {
    pub fn hold(&self) -> Option<Hold> {
        match self.record.phase {
            Phase::Hold(hold, _) => Some(hold),
            _ => None,
        }
    }

    pub fn held(&self) -> bool {
        self.hold().is_some()
    }

    /// The end of every rotation: idle, and nothing is left of what came before.
    pub fn quiescent(&self) -> bool {
        let w = &self.world;
        let alone = bit(w.provider);
        self.record.phase == Phase::Idle
            && !self.record.paused
            && self.record.current == Current::Known(kid(w.provider))
            && self.record.open.is_empty()
            && self.record.reaccepted.is_empty()
            && w.keystore.kids == alone
            && w.each_serving().all(|r| w.replicas[usize::from(r)] == alone)
            && w.in_net() == 0
    }

    /// While idle nobody looks at DialNexa, and at the keystore for older content only: the next rotation puts right what somebody
    /// did there.
    pub fn astray(&self) -> bool {
        let (r, w) = (&self.record, &self.world);
        r.phase == Phase::Idle
            && (w.keystore.kids != mask(&r.keystore_kids()) || r.current.kid() != Some(kid(w.provider)) || r.accepted.len() > 1)
    }
}

/// The wait for old deliveries, where one is under way: for which target, while draining or before, and how much is left.
pub fn drain_wait(record: &Record) -> Option<(Kid, bool, u64)> {
    let target = record.phase.rotation()?.target;
    match record.phase.underlying() {
        Phase::Drain(_, Draining { left, .. }) if *left > 0 => Some((target, true, *left)),
        Phase::Patch(_, Patching { freshness: Freshness::Waiting { left }, .. }) if *left > 0 => Some((target, false, *left)),
        _ => None,
    }
}

/// Whether a wait for old deliveries began, or began again, between two records.
pub fn drain_began(before: &Record, after: &Record) -> bool {
    match (drain_wait(before), drain_wait(after)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some((was, draining, had)), Some((is, drains, has))) => was != is || draining != drains || has > had,
    }
}
