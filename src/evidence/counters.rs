use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::secret::Kid;

/// What one replica's status file says: how many deliveries it verified under each key since it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCounts {
    pub replica: String,
    /// Tells one life of the replica from the next; opaque.
    pub started_at: String,
    pub keys: Vec<(Kid, u64)>,
}

/// At least one genuine delivery more was verified under `kid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rise {
    pub kid: Kid,
    /// The replica whose count rose most. Another one's rise in the same look may have been a probe: only this is claimed.
    pub replica: String,
    /// What all replicas together have verified under `kid`, probes and earlier lives included.
    pub total: u64,
}

/// The counts of a webhook's replicas, and what was made of them so far.
///
/// hookturn's own probes are never evidence, and a consumer counts them like deliveries. So what counts is the excess: what
/// all replicas ever counted, less every probe ever sent under that key. A probe is on the books before it is sent, so the
/// excess never exceeds the number of genuine deliveries, however late a status file is; where a consumer does not count some
/// probes, it is too low, which delays evidence and never invents it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Of each replica its lives, the least lately seen first. More than one is kept: two processes may share a name by
    /// mistake, and write in turns.
    replicas: BTreeMap<String, Vec<Life>>,
    /// By key, what all lives of all replicas have counted.
    totals: BTreeMap<Kid, u64>,
    /// By key, the highest excess that was reported, or that was there before anybody looked.
    highest: BTreeMap<Kid, i64>,
}

/// From one start of a replica to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    started_at: String,
    counts: BTreeMap<Kid, u64>,
}

/// So many lives of a replica are told apart.
const LIVES: usize = 64;

impl Counters {
    /// The first look ever: what was counted before it is nobody's evidence.
    ///
    /// Probes sent before are not subtracted: a status file may be behind, and would then rise by a probe alone.
    pub fn baseline(files: &[StatusCounts]) -> Counters {
        let mut counters = Counters::default();
        counters.take_over(files);
        counters.highest = counters.totals.iter().map(|(kid, total)| (*kid, signed(*total))).collect();
        counters
    }

    /// Takes a look at the status files. `probes_sent` tells how many probes were ever put on the books under a key, to all
    /// replicas together. Each rise is reported once; the caller makes the new state durable together with what it makes of it.
    pub fn absorb(&mut self, files: &[StatusCounts], probes_sent: impl Fn(Kid) -> u64) -> Vec<Rise> {
        let mut rises = Vec::new();
        for (kid, (replica, _)) in self.take_over(files) {
            let total = self.totals.get(&kid).copied().unwrap_or(0);
            let excess = signed(total).saturating_sub(signed(probes_sent(kid)));
            let highest = self.highest.entry(kid).or_insert(0);
            if excess > *highest {
                *highest = excess;
                rises.push(Rise { kid, replica, total });
            }
        }
        rises
    }

    /// Brings the counts up to date; says for each key that rose which replica rose most, and by how much.
    ///
    /// What a replica that was never looked at had counted of a key that others had counted before is of any age: a rise by
    /// it could pass off an old delivery for a new one, where a secret is in use again. It is taken as given.
    fn take_over(&mut self, files: &[StatusCounts]) -> BTreeMap<Kid, (String, u64)> {
        let known: BTreeSet<Kid> = self.totals.keys().copied().collect();
        let mut grown: BTreeMap<Kid, (String, u64)> = BTreeMap::new();
        for file in files {
            let lives = self.replicas.entry(file.replica.clone()).or_default();
            let stranger = lives.is_empty();
            for (kid, growth) in grow(lives, file) {
                if stranger && known.contains(&kid) {
                    continue;
                }
                let total = self.totals.entry(kid).or_insert(0);
                *total = total.saturating_add(growth);
                if growth > grown.get(&kid).map_or(0, |(_, most)| *most) {
                    grown.insert(kid, (file.replica.clone(), growth));
                }
            }
        }
        grown
    }
}

/// By how much each key's count has grown, as far as that is beyond doubt.
fn grow(lives: &mut Vec<Life>, file: &StatusCounts) -> Vec<(Kid, u64)> {
    let known = lives.iter().position(|life| life.started_at == file.started_at).map(|at| lives.remove(at));
    let first_seen = known.is_none();
    let mut life = known.unwrap_or_else(|| Life { started_at: file.started_at.clone(), counts: BTreeMap::new() });
    let mut growths = Vec::with_capacity(file.keys.len());
    for (kid, count) in &file.keys {
        // A consumer should count from its start. One that goes on from its last life shows at least as much as then: where
        // that is possible it is assumed, or the last life's probes would be counted twice and come out as deliveries.
        let before = lives.last().and_then(|last| last.counts.get(kid)).filter(|before| first_seen && *before <= count);
        let known = life.counts.entry(*kid).or_insert(before.copied().unwrap_or(0));
        // A count that falls within one life is a mistake of the consumer's, and no reason to count twice.
        growths.push((*kid, count.saturating_sub(*known)));
        *known = (*known).max(*count);
    }
    if lives.len() >= LIVES {
        lives.remove(0);
    }
    lives.push(life);
    growths
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kid(name: &str) -> Kid {
        Kid::parse(name).expect("kid")
    }

    fn file(replica: &str, started_at: &str, keys: &[(&str, u64)]) -> StatusCounts {
        let keys = keys.iter().map(|(name, count)| (kid(name), *count)).collect();
        StatusCounts { replica: replica.to_owned(), started_at: started_at.to_owned(), keys }
    }

    fn risen(counters: &mut Counters, files: &[StatusCounts], probes: u64) -> Vec<(String, u64)> {
        counters.absorb(files, |_| probes).into_iter().map(|rise| (rise.replica, rise.total)).collect()
    }

    #[test]
    fn a_rise_is_reported_once() {
        let mut counters = Counters::default();
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 1)])], 0), [("a".to_owned(), 1)]);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 1)])], 0), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 3)])], 0), [("a".to_owned(), 3)]);
    }

    #[test]
    fn own_probes_are_never_evidence_however_late_the_file_is() {
        let mut counters = Counters::default();
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 0)])], 2), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 1)])], 2), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 2)])], 2), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 3)])], 2), [("a".to_owned(), 3)]);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 4)])], 3), []);
    }

    #[test]
    fn what_was_there_at_the_first_look_is_taken_as_given() {
        let mut counters = Counters::baseline(&[file("a", "1", &[("o", 50), ("n", 0)])]);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("o", 50), ("n", 0)])], 0), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("o", 51), ("n", 0)])], 0), [("a".to_owned(), 51)]);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("o", 51), ("n", 1)])], 0), [("a".to_owned(), 1)]);
    }

    #[test]
    fn a_restart_keeps_the_old_count_in_the_total() {
        let mut counters = Counters::baseline(&[file("a", "1", &[("n", 5)])]);
        assert_eq!(risen(&mut counters, &[file("a", "2", &[("n", 0)])], 0), []);
        assert_eq!(risen(&mut counters, &[file("a", "2", &[("n", 1)])], 0), [("a".to_owned(), 6)]);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 5)])], 0), [], "two processes of one name, in turns");
        assert_eq!(risen(&mut counters, &[file("a", "2", &[("n", 1)])], 0), []);
    }

    #[test]
    fn a_stranger_brings_no_old_deliveries_of_a_known_key() {
        let mut counters = Counters::baseline(&[file("a", "1", &[("o", 5)])]);
        let files = [file("a", "1", &[("o", 5)]), file("b", "1", &[("o", 700), ("n", 1)])];
        let news: Vec<Rise> = counters.absorb(&files, |_| 0);
        assert_eq!(news.iter().map(|rise| (rise.kid, rise.total)).collect::<Vec<_>>(), [(kid("n"), 1)], "nobody knew n before");
        assert_eq!(risen(&mut counters, &[file("b", "1", &[("o", 701), ("n", 1)])], 0), [("b".to_owned(), 6)]);
    }

    #[test]
    fn a_count_that_falls_within_one_life_is_ignored() {
        let mut counters = Counters::default();
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 4)])], 0).len(), 1);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 1)])], 0), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 4)])], 0), []);
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 5)])], 0), [("a".to_owned(), 5)]);
    }

    #[test]
    fn replicas_count_together_and_the_one_that_rose_most_is_named() {
        let mut counters = Counters::default();
        let files = [file("a", "1", &[("n", 1)]), file("b", "1", &[("n", 3)])];
        assert_eq!(risen(&mut counters, &files, 2), [("b".to_owned(), 4)]);
    }

    #[test]
    fn a_consumer_that_goes_on_counting_from_its_last_life_has_no_probe_counted_twice() {
        let mut counters = Counters::default();
        assert_eq!(risen(&mut counters, &[file("a", "1", &[("n", 3)])], 3), []);
        assert_eq!(risen(&mut counters, &[file("a", "2", &[("n", 3)])], 3), []);
        assert_eq!(risen(&mut counters, &[file("a", "3", &[("n", 4)])], 3), [("a".to_owned(), 4)]);
    }

    #[test]
    fn endless_restarts_take_bounded_room() {
        let mut counters = Counters::default();
        for life in 0..500 {
            risen(&mut counters, &[file("a", &life.to_string(), &[("n", 0)])], 0);
            assert_eq!(risen(&mut counters, &[file("a", &life.to_string(), &[("n", 1)])], 0), [("a".to_owned(), life + 1)]);
        }
        assert_eq!(counters.replicas["a"].len(), LIVES);
    }

    proptest! {
        /// Whatever the restarts, lags and the order of looks: never more rises than genuine deliveries.
        #[test]
        fn there_are_never_more_rises_than_genuine_deliveries(moves in prop::collection::vec((0..6u8, 0..2usize), 1..80)) {
            let mut counters = Counters::default();
            let (mut genuine, mut probes) = (0u64, 0u64);
            let mut replicas = [(0u32, 0u64); 2];
            let mut rises = 0u64;
            for (action, at) in moves {
                match action {
                    0 => {
                        genuine += 1;
                        replicas[at].1 += 1;
                    }
                    // On the books; it may never arrive.
                    1 => probes += 1,
                    2 => {
                        probes += 1;
                        replicas[at].1 += 1;
                    }
                    3 => replicas[at] = (replicas[at].0 + 1, 0),
                    // This one keeps its count over the restart.
                    4 => replicas[at].0 += 1,
                    _ => {
                        let life = replicas[at].0.to_string();
                        let look = file(&at.to_string(), &life, &[("n", replicas[at].1)]);
                        rises += counters.absorb(&[look], |_| probes).len() as u64;
                    }
                }
                prop_assert!(rises <= genuine, "{rises} rises, {genuine} deliveries");
            }
        }
    }

    #[test]
    fn it_survives_being_stored() {
        let mut counters = Counters::baseline(&[file("a", "1", &[("o", 5)])]);
        risen(&mut counters, &[file("a", "2", &[("n", 2)])], 1);
        let text = serde_json::to_string(&counters).expect("to JSON");
        assert_eq!(serde_json::from_str::<Counters>(&text).ok(), Some(counters));
    }
}
