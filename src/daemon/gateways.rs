//! What the gateways of one webhook have counted.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::evidence::GatewayCounts;

/// More than anybody runs side by side; a name that comes after them is not counted.
const AT_MOST: usize = 64;

/// The newest totals of each gateway process. They begin at zero with a process, so those of earlier ones are kept as a sum.
#[derive(Debug, Clone, Default)]
pub(super) struct Gateways {
    /// Losses of processes that were replaced.
    before: u64,
    now: BTreeMap<String, GatewayCounts>,
}

impl Gateways {
    pub fn take(&mut self, counts: GatewayCounts) {
        let room = self.now.len() < AT_MOST;
        match self.now.entry(counts.replica.clone()) {
            Entry::Occupied(mut known) if known.get().started_at == counts.started_at => {
                // Two dispatches may overtake each other.
                let known = known.get_mut();
                known.lost = known.lost.max(counts.lost);
                known.unverified = known.unverified.max(counts.unverified);
            }
            Entry::Occupied(mut known) => self.before += known.insert(counts).lost,
            Entry::Vacant(place) if room => drop(place.insert(counts)),
            Entry::Vacant(_) => {}
        }
    }

    /// Deliveries that were not answered by the consumer, since this process began to hear of them.
    pub fn lost(&self) -> u64 {
        self.before + self.now.values().map(|counts| counts.lost).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_not_added_twice_and_a_new_process_begins_at_zero() {
        let mut gateways = Gateways::default();
        let mut take = |replica: &str, started: &str, lost| {
            let (replica, started_at) = (replica.to_owned(), started.to_owned());
            gateways.take(GatewayCounts { replica, started_at, lost, unverified: 0 });
            gateways.lost()
        };
        let totals = [take("a", "1", 2), take("a", "1", 2), take("b", "1", 3), take("a", "2", 1), take("a", "2", 0)];
        assert_eq!(totals, [2, 2, 5, 6, 6]);
    }
}
