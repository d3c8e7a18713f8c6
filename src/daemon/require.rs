//! `verify.require`: the doors that must each have shown the target before anything counts as the switch proof.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{config::Door, secret::Kid};

/// Bodies remembered while a door is still missing.
const WITHHELD: usize = 256;

/// Which doors have shown the target of a rotation. Kept across restarts: a rare delivery need not come twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    of: Option<(u64, Kid)>,
    doors: BTreeSet<String>,
    /// What was shown by one door too early to count. Another door's sight of the same delivery counts as its first one.
    #[serde(skip)]
    withheld: VecDeque<String>,
}

impl Shown {
    /// Takes note of a door that shows the target. First: whether the sight counts, and then whether its body was held back
    /// before. Second: a door is new.
    pub fn admit(&mut self, required: &[Door], of: (u64, Kid), door: Door, body: &str) -> (Option<bool>, bool) {
        if self.of != Some(of) {
            *self = Shown { of: Some(of), ..Shown::default() };
        }
        let new = required.contains(&door) && self.doors.insert(door.name().to_owned());
        if !self.missing(required).is_empty() {
            self.withheld.push_back(body.to_owned());
            if self.withheld.len() > WITHHELD {
                self.withheld.pop_front();
            }
            return (None, new);
        }
        let before = self.withheld.len();
        self.withheld.retain(|withheld| withheld != body);
        (Some(self.withheld.len() < before), new)
    }

    fn missing(&self, required: &[Door]) -> Vec<Door> {
        required.iter().copied().filter(|door| !self.doors.contains(door.name())).collect()
    }

    /// The doors that have shown this target, and those that are still asked for.
    pub fn told(&self, required: &[Door], of: (u64, Kid)) -> (Vec<Door>, Vec<Door>) {
        let ours = if self.of == Some(of) { self.clone() } else { Shown::default() };
        let missing = ours.missing(required);
        (required.iter().copied().filter(|door| !missing.contains(door)).collect(), missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Door::{Keystore, Report, Tap};

    fn of(rotation: u64) -> (u64, Kid) {
        (rotation, Kid::parse("new").expect("kid"))
    }

    #[test]
    fn every_door_that_is_asked_for_must_have_shown_the_target() {
        let mut shown = Shown::default();
        let required = [Report, Tap];
        assert_eq!(shown.admit(&required, of(1), Keystore, "a"), (None, false), "not asked for, so it waits with the others");
        assert_eq!(shown.admit(&required, of(1), Report, "b"), (None, true));
        assert_eq!(shown.admit(&required, of(1), Report, "c"), (None, false));
        assert_eq!(shown.told(&required, of(1)), (vec![Report], vec![Tap]));
        assert_eq!(shown.admit(&required, of(1), Tap, "c"), (Some(true), true), "the same delivery through the other door");
        assert_eq!(shown.admit(&required, of(1), Tap, "d"), (Some(false), false));
        assert_eq!(shown.admit(&required, of(1), Report, "c"), (Some(false), false), "it has counted");
    }

    #[test]
    fn what_was_shown_in_one_rotation_is_nothing_in_the_next() {
        let mut shown = Shown::default();
        assert_eq!(shown.admit(&[Tap], of(1), Tap, "a"), (Some(false), true));
        assert_eq!(shown.admit(&[Report, Tap], of(2), Report, "b"), (None, true));
        let back = (2, Kid::parse("old").expect("kid"));
        assert_eq!(shown.admit(&[Report, Tap], back, Tap, "b"), (None, true), "another target");
        assert_eq!(shown.told(&[Report, Tap], of(2)), (vec![], vec![Report, Tap]));
    }

    #[test]
    fn a_restart_keeps_the_doors() {
        let mut shown = Shown::default();
        shown.admit(&[Report, Tap], of(1), Report, "a");
        let stored = serde_json::to_string(&shown).expect("JSON");
        let mut shown: Shown = serde_json::from_str(&stored).expect("read back");
        assert_eq!(shown.admit(&[Report, Tap], of(1), Tap, "a"), (Some(false), true));
    }
}
