//! What came through the doors lately, by what it was signed with. Counted for people: no decision rests on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::Door,
    evidence::{Facts, Reason},
    secret::Kid,
    store::UnixMillis,
};

/// What a delivery was signed with, as the record stood when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signed {
    Target,
    Current,
    /// Another secret that is accepted: one that a supersede left behind, or one accepted again.
    Other,
    Retired,
}

/// One look at a delivery that verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub kid: Kid,
    pub signed: Signed,
    pub door: Door,
    pub new_body: bool,
    pub accepted: Option<bool>,
    pub at: UnixMillis,
}

/// So many of one kind, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub count: u64,
    pub first: UnixMillis,
    pub last: UnixMillis,
}

impl Tally {
    fn add(&mut self, at: UnixMillis) {
        if self.count == 0 {
            self.first = at;
        }
        self.count += 1;
        self.last = at;
    }
}

/// Deliveries that verified under no key. Anybody can send one.
#[derive(Debug, Clone, Default)]
pub(super) struct Unmatched {
    /// Since the last one that verified.
    pub tally: Tally,
    pub reasons: BTreeMap<Reason, u64>,
    pub newest: Facts,
    /// Those of them that look like DialNexa's other plane.
    pub external: u64,
}

/// A genuine delivery that the consumer answered with 401 or 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub kid: Kid,
    pub tally: Tally,
    pub replica: Option<String>,
}

/// The newest delivery under a retired secret. Kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trip {
    pub kid: Kid,
    pub first: UnixMillis,
    pub at: UnixMillis,
    pub count: u64,
    /// How many of them had a body that was not seen before.
    pub new_bodies: u64,
    pub door: String,
    /// What else is known, as [`crate::evidence::Sighting::detail`] says it.
    pub detail: serde_json::Value,
}

/// Right after the switch, deliveries that were signed before it are still coming in.
const GRACE_MS: i64 = 1_000;
/// Counters in status files are behind.
const LAG_MS: i64 = 3_000;

/// Since [`Traffic::begin`]: the newest switch, or the start of the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    begun: UnixMillis,
    /// New bodies under the target, and under another accepted secret.
    pub target: Tally,
    pub old: Tally,
    /// By door, the unbroken run of new bodies of one kind.
    pub runs: BTreeMap<Door, (Signed, Tally)>,
    /// The same over all doors together.
    pub run: Option<(Signed, Tally)>,
    /// What the consumer has counted since the tap last showed anything.
    pub past_the_tap: Tally,
    pub unmatched: Unmatched,
    pub external: Option<(Tally, Facts)>,
    pub refusal: Option<Refusal>,
    /// The highest generation that a replica claims to have loaded.
    pub loaded: u64,
    /// The keystore was seen to hold what hookturn did not write.
    pub keystore_foreign: bool,
}

impl Traffic {
    /// What is seen from now on is judged anew.
    pub fn begin(&mut self, now: UnixMillis) {
        let (external, loaded, keystore_foreign) = (self.external.take(), self.loaded, self.keystore_foreign);
        *self = Traffic { begun: now, external, loaded, keystore_foreign, ..Traffic::default() };
    }

    pub fn age(&self, now: UnixMillis) -> i64 {
        now - self.begun
    }

    pub fn verified(&mut self, look: Look, replica: Option<&str>) {
        if look.door == Door::Tap {
            self.past_the_tap = Tally::default();
        }
        if look.accepted == Some(false) && look.signed != Signed::Retired {
            let refusal = Refusal { kid: look.kid, tally: Tally::default(), replica: None };
            let refusal = match &mut self.refusal {
                Some(known) if known.kid == look.kid => known,
                other => other.insert(refusal),
            };
            refusal.tally.add(look.at);
            refusal.replica = replica.map(str::to_owned);
        }
        // A late retry under a retired secret says nothing about what DialNexa signs with now.
        if look.new_body || look.signed != Signed::Retired {
            self.unmatched = Unmatched::default();
        }
        if look.signed != Signed::Retired && look.door != Door::Tap && look.new_body {
            self.past_the_tap.add(look.at);
        }
        if !look.new_body || self.still_from_before(&look) {
            return;
        }
        match look.signed {
            Signed::Target => self.target.add(look.at),
            Signed::Current | Signed::Other => self.old.add(look.at),
            Signed::Retired => {}
        }
        let fresh = (look.signed, Tally::default());
        let go_on = |(signed, tally): (Signed, Tally)| if signed == look.signed { (signed, tally) } else { fresh };
        let (_, tally) = self.run.insert(self.run.map_or(fresh, go_on));
        tally.add(look.at);
        let run = self.runs.entry(look.door).or_insert(fresh);
        *run = go_on(*run);
        run.1.add(look.at);
    }

    fn still_from_before(&self, look: &Look) -> bool {
        let lag = if look.door == Door::Keystore { LAG_MS } else { GRACE_MS };
        look.signed != Signed::Target && look.at - self.begun < lag
    }

    pub fn unverified(&mut self, door: Door, reason: Reason, facts: &Facts, at: UnixMillis) {
        if door == Door::Tap {
            self.past_the_tap = Tally::default();
        }
        self.unmatched.tally.add(at);
        *self.unmatched.reasons.entry(reason).or_default() += 1;
        self.unmatched.newest = facts.clone();
        if of_the_external_plane(facts) {
            self.unmatched.external += 1;
            let (tally, newest) = self.external.get_or_insert_default();
            tally.add(at);
            *newest = facts.clone();
        }
    }

    /// Two doors whose runs say different things over the same stretch of time, longer than any lag: which, and what.
    pub fn disagreement(&self) -> Option<[(Door, Signed, u64); 2]> {
        const ENOUGH: u64 = 3;
        const TOGETHER_MS: i64 = 5_000;
        let long = |(_, (_, tally)): &(&Door, &(Signed, Tally))| tally.count >= ENOUGH;
        let runs: Vec<_> = self.runs.iter().filter(long).map(|(door, (signed, tally))| (*door, *signed, *tally)).collect();
        for (at, (door, signed, tally)) in runs.iter().enumerate() {
            for (other, theirs, beside) in &runs[at + 1..] {
                let together = tally.last.min(beside.last) - tally.first.max(beside.first);
                if signed != theirs && together > TOGETHER_MS {
                    return Some([(*door, *signed, tally.count), (*other, *theirs, beside.count)]);
                }
            }
        }
        None
    }
}

/// The dashboard's webhook, which is signed with the organisation's secret and which no PATCH changes. A guess: everything in
/// a request can be forged.
fn of_the_external_plane(facts: &Facts) -> bool {
    const AGENT: &str = "DialNexa-External-Webhook";
    facts.user_agent.as_deref().is_some_and(|agent| agent.starts_with(AGENT))
        && facts.header == Some("x-dialnexa-signature")
        && !facts.prefixed
}
