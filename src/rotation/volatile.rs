use serde::{Deserialize, Serialize};

use super::mutants::{self, Mutant};
use super::{Inspection, KidSet, Millis, ReplicaId, Verdict};
use crate::secret::Kid;

/// What one process knows about a webhook and a crash forgets. It is never trusted across a restart: it is proven again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Volatile {
    /// The boot event was seen.
    pub booted: bool,
    /// Numbers for calls and rounds; an answer that carries an older number is dropped.
    pub calls: u64,
    /// Credit that is not in the record yet.
    pub accrued: Accrued,
    pub keystore: KeystoreView,
    #[serde(default)]
    pub overfull: Option<Overfull>,
    pub roster: Vec<ReplicaId>,
    /// The last verdict of each replica for the present generation and target.
    pub verdicts: Vec<(ReplicaId, Verdict)>,
    /// The keystore was read back once more after the last of them.
    #[serde(default)]
    pub reread: bool,
    pub asking: Option<u64>,
    pub line: Line,
    pub webhook: WebhookView,
    /// The proofs are being taken once more, right before the retire.
    pub reproving: bool,
    pub timers: Timers,
}

/// The keystore and a restored record are together more than the keystore has room for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Overfull {
    /// What of the record the keystore was found to hold.
    pub there: KidSet,
    /// A person has asked to keep just that: it is read once more, and what it holds then is kept.
    pub settle: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Accrued {
    pub elapsed: Millis,
    pub observed: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeystoreView {
    /// Not read in this life, or changed since.
    #[default]
    Unknown,
    /// Being read; `last`: every proof was there when that began, and none is newer.
    Reading {
        call: u64,
        last: bool,
    },
    Writing {
        call: u64,
    },
    /// Read back: it holds exactly what it should.
    Confirmed,
}

/// The connection to DialNexa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    #[default]
    Free,
    Connecting {
        call: u64,
    },
    /// The attempt was sent with `kid` and not answered. `alone`: no foreign attempt was open when it was sent. `doubt`: what
    /// was left then of the doubt about the attempts before it.
    Sent {
        attempt: u64,
        kid: Kid,
        alone: bool,
        #[serde(default)]
        doubt: Millis,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookView {
    #[default]
    Unknown,
    Asking {
        call: u64,
    },
    Known(Inspection),
}

impl Line {
    /// What a request that was not answered yet carries.
    pub fn sending(self) -> Option<Kid> {
        match self {
            Line::Sent { kid, .. } => Some(kid),
            Line::Free | Line::Connecting { .. } => None,
        }
    }
}

/// Countdowns. Zero means due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Timers {
    /// The consumer's refresh period after a keystore write.
    pub wait: Millis,
    /// Until the next look at keystore and replicas.
    pub look: Millis,
    pub keystore_retry: Retry,
    pub ask_retry: Retry,
    pub line_retry: Retry,
    pub webhook_retry: Retry,
}

/// A countdown that doubles with every failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Retry {
    pub left: Millis,
    pub step: Millis,
}

impl Retry {
    /// The next wait: `first`, then twice the one before, up to `most`.
    pub fn back_off(&mut self, first: Millis, most: Millis) {
        self.step = if self.step == 0 { first } else { self.step.saturating_mul(2).min(most).max(first) };
        self.left = self.step;
    }

    /// What the other side asked for is a step of that length: nothing brings the next try forward.
    pub fn wait_at_least(&mut self, wait: Millis) {
        self.left = self.left.max(wait);
        self.step = self.step.max(self.left);
    }

    pub fn clear(&mut self) {
        *self = Retry::default();
    }

    pub fn due(self) -> bool {
        self.left == 0
    }
}

impl Timers {
    pub(super) fn pass(&mut self, elapsed: Millis) {
        for left in [
            &mut self.wait,
            &mut self.look,
            &mut self.keystore_retry.left,
            &mut self.ask_retry.left,
            &mut self.line_retry.left,
            &mut self.webhook_retry.left,
        ] {
            *left = left.saturating_sub(elapsed);
        }
    }
}

impl Volatile {
    pub(super) fn next_call(&mut self) -> u64 {
        self.calls = self.calls.saturating_add(1);
        self.calls
    }

    pub fn verdict(&self, replica: ReplicaId) -> Option<Verdict> {
        self.verdicts.iter().find(|(id, _)| *id == replica).map(|(_, verdict)| *verdict)
    }

    pub(super) fn set_verdict(&mut self, replica: ReplicaId, verdict: Verdict) {
        if self.verdict(replica) != Some(verdict) {
            self.reread = false;
            if let KeystoreView::Reading { last, .. } = &mut self.keystore {
                *last = false;
            }
        }
        match self.verdicts.binary_search_by_key(&replica, |(id, _)| *id) {
            Ok(at) => self.verdicts[at].1 = verdict,
            Err(at) => self.verdicts.insert(at, (replica, verdict)),
        }
    }

    /// Replicas that were not shown to accept what they should.
    pub fn laggards(&self) -> Vec<ReplicaId> {
        self.roster.iter().copied().filter(|id| self.verdict(*id) != Some(Verdict::Accepts)).collect()
    }

    /// The keystore content changed, or is in doubt: nothing that was shown about it holds any more.
    pub(super) fn forget_proofs(&mut self) {
        self.keystore = KeystoreView::Unknown;
        self.overfull = None;
        if !mutants::on(Mutant::ProofsSurviveChange) {
            self.verdicts.clear();
        }
        self.asking = None;
        self.reread = false;
        self.reproving = false;
    }
}
