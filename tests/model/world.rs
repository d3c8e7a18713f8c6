//! What the model knows: the real record and volatile state of the core, and an abstract world around them.

use std::sync::LazyLock;

use hookturn::{
    rotation::{Current, Draining, Freshness, KidSet, OnReject, Patching, Phase, Policy, Record, ReplicaId, Volatile},
    secret::Kid,
};

/// How many key ids exist at once. Dead ones are used again, so the number of rotations is not bounded by it.
pub const KIDS: usize = 5;
pub const REPLICAS: usize = 3;

/// A set of key ids, bit by bit.
pub type Mask = u8;

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

/// What a keystore or a replica holds.
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
    /// What each replica accepts; the first `Setup::replicas` of them exist.
    pub replicas: [Content; REPLICAS],
    /// Deliveries under way that existed when the present drain (or wait for freshness) began, by the key that signed them.
    pub elder: Mask,
    /// Deliveries under way that were signed since.
    pub younger: Mask,
    /// Keys whose material the store has.
    pub known: Mask,
    /// Replicas, and the keystore as the highest bit, that vouched for the target since the retire was due.
    pub vouched: u8,
    pub read: Option<u64>,
    pub write: Option<Write>,
    pub ask: Option<Ask>,
    pub inspect: Option<u64>,
    pub connect: Option<u64>,
    pub sent: Option<Sent>,
    /// Writes that nobody waits for and that may still reach the keystore.
    pub stray: Vec<Content>,
    pub backup: Option<Box<Backup>>,
    pub restored: bool,
    /// How often somebody else may still write the keystore.
    pub meddling: u8,
    /// Content that the keystore once held, for somebody else to put back.
    pub older: Option<Content>,
    /// Somebody else's content has not been put right everywhere yet.
    pub tainted: bool,
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

/// One configuration of the model: what may happen in it, and how far it is followed.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    pub kids: u8,
    pub replicas: usize,
    pub slots: Option<u8>,
    pub on_reject: OnReject,
    pub quarantine: u64,
    pub crash: bool,
    pub abort: bool,
    pub rollback: bool,
    pub supersede: bool,
    pub emergency: bool,
    pub pause: bool,
    pub reaccept: bool,
    /// The consumer may refuse a genuine target-signed delivery.
    pub rejects: bool,
    /// DialNexa may definitely refuse a PATCH.
    pub refusals: bool,
    /// Every 200 may be a lie.
    pub lies: bool,
    /// Probes come back through the evidence doors.
    pub probes: bool,
    pub restore: bool,
    pub meddling: u8,
    /// Late keystore writes that nobody waits for.
    pub strays: usize,
    /// The regular look may become due.
    pub looks: bool,
    /// Assumptions that may be broken, to show what they are for.
    pub broken: Option<Assumption>,
    /// A rule of the core is broken: nothing of what it remembers is left out.
    pub mutant: bool,
    pub check: &'static [Property],
    pub most_states: usize,
    pub liveness: bool,
}

/// What the guarantees rest on (docs/protocol.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assumption {
    /// A PATCH is applied within the quarantine or never.
    Quarantine,
    /// A delivery reaches its end within the drain.
    Drain,
    /// The keystore refuses a write with a number that is not newer.
    ConditionalWrite,
    /// A replica never goes back in generation.
    ReplicasGoForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Property {
    /// I1: every replica accepts what DialNexa signs with.
    Coverage,
    /// I2: every replica accepts every delivery under way.
    NoReject,
    /// I3: what a PATCH under way carries is in the keystore and accepted by every replica.
    LatePatchCovered,
    /// I4: what DialNexa signs with is on record or in the keystore.
    NeverLost,
    /// I5, I7: idle means that DialNexa signs with `current` and nothing else can still be applied.
    TruthfulCompletion,
    /// I6: every PATCH under way is open on record.
    IntentFirst,
    /// I8, I9: a rotation ends only when keystore and replicas accept what stays and nothing else.
    RetiredMeansRetired,
    /// I10: what was retired is never sent again.
    Tombstone,
    /// Both proofs are taken before a retire.
    BothProofs,
    /// The bookkeeping: `seq` rises, `open` shrinks by credit only, answers are owed for everything waited for.
    Bookkeeping,
    /// L1: from every state some fault-free continuation ends the rotation.
    Liveness,
}

pub const SAFETY: &[Property] = &[
    Property::Coverage,
    Property::NoReject,
    Property::LatePatchCovered,
    Property::NeverLost,
    Property::TruthfulCompletion,
    Property::IntentFirst,
    Property::RetiredMeansRetired,
    Property::Tombstone,
    Property::BothProofs,
    Property::Bookkeeping,
];

impl Setup {
    pub fn base(name: &'static str) -> Setup {
        Setup {
            name,
            kids: 3,
            replicas: 2,
            slots: None,
            on_reject: OnReject::SwitchBack,
            quarantine: 2,
            crash: true,
            abort: true,
            rollback: true,
            supersede: false,
            emergency: false,
            pause: false,
            reaccept: false,
            rejects: false,
            refusals: false,
            lies: false,
            probes: false,
            restore: false,
            meddling: 0,
            strays: 1,
            looks: false,
            broken: None,
            mutant: false,
            check: SAFETY,
            most_states: 20_000_000,
            liveness: true,
        }
    }

    pub fn policy(&self) -> Policy {
        Policy {
            quarantine: self.quarantine,
            drain: 1,
            wait: 0,
            repeat_min: 1,
            repeat_max: 4,
            min_deliveries: 1,
            min_span: 0,
            slots: self.slots,
            on_reject: self.on_reject,
            unproven: false,
        }
    }

    pub fn roster(&self) -> Vec<ReplicaId> {
        (0..self.replicas as u16).map(ReplicaId).collect()
    }

    /// Adopted, confirmed, idle, and everybody agrees.
    pub fn start(&self) -> State {
        let content = Content { generation: 1, kids: bit(0) };
        let mut record = Record::unadopted(self.policy(), 0);
        record.current = Current::Known(kid(0));
        record.confirmed = true;
        record.accepted = set(bit(0));
        record.generation = 1;
        record.kept = 1;
        let volatile = Volatile { booted: true, roster: self.roster(), ..Volatile::default() };
        State { record, volatile, world: World::quiet(content, self.meddling) }
    }
}

impl World {
    fn quiet(content: Content, meddling: u8) -> World {
        World {
            provider: 0,
            net: [0; KIDS],
            keystore: content,
            replicas: [content; REPLICAS],
            elder: 0,
            younger: 0,
            known: content.kids,
            vouched: 0,
            read: None,
            write: None,
            ask: None,
            inspect: None,
            connect: None,
            sent: None,
            stray: Vec::new(),
            backup: None,
            restored: false,
            meddling,
            older: None,
            tainted: false,
        }
    }

    /// Kids whose PATCH may still be applied.
    pub fn in_net(&self) -> Mask {
        (0..KIDS as u8).filter(|kid| self.net[usize::from(*kid)] > 0).fold(0, |mask, kid| mask | bit(kid))
    }

    pub fn flying(&self) -> Mask {
        self.elder | self.younger
    }
}

impl State {
    pub fn held(&self) -> bool {
        matches!(self.record.phase, Phase::Hold(..))
    }

    /// The end of every rotation: idle, and nothing is left of what came before.
    pub fn quiescent(&self, replicas: usize) -> bool {
        let alone = bit(self.world.provider);
        self.record.phase == Phase::Idle
            && self.record.current == Current::Known(kid(self.world.provider))
            && self.record.open.is_empty()
            && self.record.reaccepted.is_empty()
            && self.world.keystore.kids == alone
            && self.world.replicas[..replicas].iter().all(|content| content.kids == alone)
            && self.world.in_net() == 0
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
