use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Verdict;
use crate::secret::Kid;

/// What a replica has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Answered 2xx, and everything else.
    pub accepted: u64,
    pub rejected: u64,
    /// By the key that verified.
    pub keys: BTreeMap<Kid, KeyCounts>,
    /// Refused before or without a key: `no-signature`, `malformed`, `repeated`, `mismatch`, `unparseable`, `banned`.
    pub refused: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct KeyCounts {
    /// Verified and answered 2xx.
    pub accepted: u64,
    /// Verified, and answered otherwise all the same.
    pub rejected: u64,
    pub last_accepted_at: Option<DateTime<Utc>>,
}

impl Counts {
    pub fn of(&self, kid: Kid) -> KeyCounts {
        self.keys.get(&kid).copied().unwrap_or_default()
    }

    pub(super) fn count(&mut self, verdict: &Verdict) {
        let accepted = verdict.accepted();
        if accepted {
            self.accepted += 1;
        } else {
            self.rejected += 1;
        }
        if let Some(reason) = verdict.refused {
            *self.refused.entry(reason).or_default() += 1;
        }
        let Some(kid) = verdict.kid else { return };
        let key = self.keys.entry(kid).or_default();
        if accepted {
            key.accepted += 1;
            key.last_accepted_at = Some(Utc::now());
        } else {
            key.rejected += 1;
        }
    }
}
