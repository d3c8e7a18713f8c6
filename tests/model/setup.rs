//! Which part of the world a search follows. Everything at once is too much: features are combined in pairs and threes, and
//! each is in at least one combination.

use hookturn::rotation::{Current, KidSet, OnReject, Policy, Record, ReplicaId, Volatile};

use super::{
    check::{Property, SAFETY},
    world::{Content, KIDS, REPLICAS, State, World, bit, kid, set},
};

/// One configuration of the model: what may happen in it, and how far it is followed.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    /// How many key ids may be alive at once; in a hold there is always one more.
    pub kids: u8,
    pub replicas: u8,
    pub slots: Option<u8>,
    pub on_reject: OnReject,
    pub quarantine: u64,
    pub drain: u64,
    pub abort: bool,
    pub rollback: bool,
    pub supersede: bool,
    pub emergency: bool,
    pub pause: bool,
    pub reaccept: bool,
    /// The consumer may refuse a genuine delivery.
    pub rejects: bool,
    /// DialNexa may definitely refuse a PATCH.
    pub refusals: bool,
    /// Every 200 may be a lie.
    pub lies: bool,
    /// Probes and old bodies come back through the evidence doors; replicas answer in ways that do not tell.
    pub noise: bool,
    /// A backup may be taken at any time and restored later.
    pub restore: bool,
    /// How often somebody else writes the keystore; [`AGAIN_AND_AGAIN`] is without end.
    pub meddling: u8,
    /// How many foreign keys somebody may add to the keystore.
    pub strangers: u8,
    /// Replicas come and go.
    pub churn: bool,
    /// How often DialNexa's secret may be changed by hand.
    pub hands: u8,
    /// A process may be dead for a while that the machine vouches for.
    pub dark: bool,
    /// The webhook's identity may move in the configuration.
    pub drift: bool,
    /// The secret that is there at the beginning is not known to hookturn.
    pub unknown: bool,
    /// A person may say at any time that the secret is not known.
    pub unsure: bool,
    /// Late keystore writes that nobody waits for.
    pub strays: usize,
    /// The regular look may become due.
    pub looks: bool,
    /// An assumption that may be broken, to show what it is for.
    pub broken: Option<Assumption>,
    /// A rule of the core is broken: nothing of what it remembers is left out.
    pub mutant: bool,
    pub check: &'static [Property],
    /// Where the search stops.
    pub most_states: usize,
    /// It is known to stop there: what is beyond was not looked at, and liveness is not judged.
    pub partial: bool,
}

pub const AGAIN_AND_AGAIN: u8 = u8::MAX;

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
    /// A daemon that lost its lease writes no intent.
    Fencing,
    /// None is broken: what the setup allows is enough.
    None,
}

impl Setup {
    /// Crashes, late and duplicate PATCHes, lag, lost answers: they are in every setup.
    pub const fn plain(name: &'static str) -> Setup {
        Setup {
            name,
            kids: 3,
            replicas: 2,
            slots: None,
            on_reject: OnReject::SwitchBack,
            quarantine: 2,
            drain: 1,
            abort: false,
            rollback: false,
            supersede: false,
            emergency: false,
            pause: false,
            reaccept: false,
            rejects: false,
            refusals: false,
            lies: false,
            noise: false,
            restore: false,
            meddling: 0,
            strangers: 0,
            churn: false,
            hands: 0,
            dark: false,
            drift: false,
            unknown: false,
            unsure: false,
            strays: 1,
            looks: false,
            broken: None,
            mutant: false,
            check: SAFETY,
            most_states: 2_000_000,
            partial: false,
        }
    }

    pub fn policy(&self) -> Policy {
        Policy {
            quarantine: self.quarantine,
            drain: self.drain,
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

    pub fn roster(&self, serving: u8) -> Vec<ReplicaId> {
        (0..self.replicas).filter(|r| serving & (1 << r) != 0).map(|r| ReplicaId(u16::from(r))).collect()
    }

    /// Adopted, confirmed, idle, and everybody agrees.
    pub fn start(&self) -> State {
        let mut record = Record::unadopted(self.policy(), 0);
        let (content, outside) =
            if self.unknown { (Content::default(), bit(0)) } else { (Content { generation: 1, kids: bit(0) }, 0) };
        record.current = if self.unknown { Current::Unknown } else { Current::Known(kid(0)) };
        record.confirmed = true;
        record.accepted = if self.unknown { KidSet::new() } else { set(bit(0)) };
        record.generation = content.generation;
        record.kept = content.generation;
        let serving = (1u8 << self.replicas) - 1;
        let volatile = Volatile { booted: true, roster: self.roster(serving), ..Volatile::default() };
        let world = World {
            provider: 0,
            net: [0; KIDS],
            keystore: content,
            replicas: [content.kids; REPLICAS],
            serving,
            outside,
            elder: 0,
            elder_life: 0,
            younger: bit(0),
            known: content.kids,
            leaked: 0,
            vouched: 0,
            shown: 0,
            read: None,
            early: false,
            write: None,
            ask: None,
            inspect: None,
            connect: None,
            sent: None,
            stale: 0,
            stray: Vec::new(),
            backup: None,
            restored: false,
            older: None,
            meddling: self.meddling,
            strangers: self.strangers,
            tainted: false,
            leftover: false,
            meddled: false,
            taken: 0,
            by_hand: false,
            said: false,
            hands: self.hands,
            hand: 0,
        };
        State { record, volatile, world }
    }
}
