//! The counters in the replicas' status files, read as evidence. Pure.
//!
//! A replica counts the deliveries that verified under each key, and **it counts hookturn's own probes among them**: it
//! cannot tell them apart, and must not need to. So a counter that rises is not evidence yet. What is:
//!
//! > A key was used by somebody else, if its counts over all replicas and all their lives exceed the number of requests
//! > that hookturn itself ever signed with it.
//!
//! The invariant behind it: *one probe request raises at most one counter by at most one* (a probe URL leads to one
//! replica, is never retried, and a replica counts a request once). hookturn's number is written down before a probe is
//! signed and must be read after the status files were; then it is never less than what the replicas can have counted of
//! it, however many probes were lost, refused or not counted, and the surplus is genuine. Everything that goes wrong makes
//! the surplus smaller, never larger: a probe that got lost, a replica that died before it wrote its file, a file that was
//! put back, a counter that went down. That costs evidence, which costs time, and nothing else. (A consumer should count
//! where it verifies, before it parses: one that does not count probes needs as many deliveries as there were probes.)
//!
//! When a surplus is *dated*, its deliveries came in between the last look and this one. Without that they may have come
//! at any time since the replica was last seen: conclusive for a key that DialNexa was never given before the rotation
//! under way, and nothing for one that is in use again.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::secret::Kid;

/// What one replica's status file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCounts {
    pub replica: String,
    /// Tells one life of a replica from the next.
    pub started_at: DateTime<Utc>,
    /// The keystore generation it has loaded.
    pub generation: u64,
    /// How many deliveries it accepted under each key since it started.
    pub keys: Vec<(Kid, u64)>,
}

/// Genuine deliveries that a replica has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rise {
    pub kid: Kid,
    /// The replica whose counter rose. Where probes were counted in the same look, which replica got the probes and which
    /// the deliveries is not known.
    pub replica: String,
    pub started_at: DateTime<Utc>,
    /// What its counter says now.
    pub verified: u64,
    /// How many deliveries are known to be genuine now, beyond those told before.
    pub by: u64,
    /// They came after the last look. See the module's documentation.
    pub dated: bool,
}

/// What was read from the status files of one webhook so far. To be stored with every commit that its rises are in; if it
/// is lost, the next look is a new beginning, which reports nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Whether there was a look before.
    begun: bool,
    tallies: BTreeMap<Kid, Tally>,
    replicas: BTreeMap<String, Lives>,
    /// Whose files were there at the last look.
    present: BTreeSet<String>,
    /// Whether that look was made by this process: only then is it known when it was.
    #[serde(skip)]
    continuous: bool,
}

/// The highest count of each key, by life of the replica.
type Lives = BTreeMap<DateTime<Utc>, BTreeMap<Kid, u64>>;

/// What all replicas have counted of one key since hookturn first looked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    counted: u64,
    /// How much of it was reported as genuine.
    reported: u64,
    /// How much of it was neither reported nor dated yet. It is reported first, so that nothing old passes for new.
    undated: u64,
}

/// One counter that is higher than it was.
struct Increment<'a> {
    kid: Kid,
    file: &'a StatusCounts,
    verified: u64,
    by: u64,
    dated: bool,
}

impl Counters {
    /// Lives of one replica that are kept. Two processes that write under one name take turns, so one is not enough.
    const LIVES: usize = 4;
    /// Replicas that are kept before those without a file are forgotten.
    const REPLICAS: usize = 1024;

    /// Takes in one look at all status files, and tells which deliveries are known to be genuine by it.
    ///
    /// `probes_sent(kid)` is the number of requests ever signed with `kid`, counted before they were sent, and read after
    /// `files` were.
    pub fn absorb(&mut self, files: &[StatusCounts], probes_sent: impl Fn(Kid) -> u64) -> Vec<Rise> {
        let known: BTreeSet<Kid> = self.tallies.keys().copied().collect();
        let mut increments = Vec::new();
        for file in files {
            self.absorb_file(file, &known, &mut increments);
        }
        let rises = self.report(&increments, probes_sent);
        self.present = files.iter().map(|file| file.replica.clone()).collect();
        self.begun = true;
        self.continuous = true;
        self.forget_the_absent();
        rises
    }

    fn absorb_file<'a>(&mut self, file: &'a StatusCounts, known: &BTreeSet<Kid>, increments: &mut Vec<Increment<'a>>) {
        let was_present = self.present.contains(&file.replica);
        let lives = self.replicas.entry(file.replica.clone()).or_default();
        let newest = lives.last_key_value().map(|(started_at, _)| *started_at);
        let known_life = lives.contains_key(&file.started_at);
        // It began after the last look, so every count of it is new.
        let new_life = was_present && newest.is_some_and(|newest| newest < file.started_at);
        let highest = lives.entry(file.started_at).or_default();
        for (kid, verified) in file.keys.iter().copied() {
            let is_new = match highest.get(&kid) {
                Some(_) => true,
                None if !self.begun => false,
                None => known_life || new_life || !known.contains(&kid),
            };
            let before = highest.insert(kid, verified.max(highest.get(&kid).copied().unwrap_or(0))).unwrap_or(0);
            let tally = self.tallies.entry(kid).or_default();
            let by = verified.saturating_sub(before);
            if is_new && by > 0 {
                let dated = self.continuous && was_present;
                tally.counted = tally.counted.saturating_add(by);
                tally.undated = tally.undated.saturating_add(if dated { 0 } else { by });
                increments.push(Increment { kid, file, verified, by, dated });
            }
        }
        while lives.len() > Self::LIVES {
            lives.pop_first();
        }
    }

    fn report(&mut self, increments: &[Increment<'_>], probes_sent: impl Fn(Kid) -> u64) -> Vec<Rise> {
        let mut rises = Vec::new();
        for Increment { kid, file, verified, by, dated } in increments {
            let Some(tally) = self.tallies.get_mut(kid) else { continue };
            let surplus = tally.counted.saturating_sub(probes_sent(*kid)).saturating_sub(tally.reported);
            let by = surplus.min(*by);
            if by == 0 {
                continue;
            }
            let dated = *dated && tally.undated == 0;
            tally.undated = tally.undated.saturating_sub(by);
            tally.reported += by;
            let (replica, started_at) = (file.replica.clone(), file.started_at);
            rises.push(Rise { kid: *kid, replica, started_at, verified: *verified, by, dated });
        }
        rises
    }

    /// Where replicas get a new name with every start, those of long ago are let go. One that comes back after all is
    /// taken for a stranger, whose counts of known keys are not new.
    fn forget_the_absent(&mut self) {
        if self.replicas.len() > Self::REPLICAS {
            let present = &self.present;
            self.replicas.retain(|replica, _| present.contains(replica));
        }
    }
}

#[cfg(test)]
mod tests;
