use proptest::prelude::*;

use super::*;

fn kid(text: &str) -> Kid {
    Kid::parse(text).expect("a kid")
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

fn file(replica: &str, started: i64, keys: &[(&str, u64)]) -> StatusCounts {
    let keys = keys.iter().map(|(text, verified)| (kid(text), *verified)).collect();
    StatusCounts { replica: replica.to_owned(), started_at: at(started), generation: 1, keys }
}

fn look(counters: &mut Counters, files: &[StatusCounts], probes: u64) -> Vec<(String, u64, bool)> {
    counters.absorb(files, |_| probes).into_iter().map(|rise| (rise.replica, rise.by, rise.dated)).collect()
}

fn rise(replica: &str, by: u64) -> Vec<(String, u64, bool)> {
    vec![(replica.to_owned(), by, true)]
}

fn reload(counters: &Counters) -> Counters {
    serde_json::from_value(serde_json::to_value(counters).expect("to JSON")).expect("from JSON")
}

#[test]
fn what_was_counted_before_the_first_look_is_not_new() {
    let mut counters = Counters::default();
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 500)])], 0), []);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 501)])], 0), rise("a", 1));
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 501), ("y", 2)])], 0), rise("a", 2));
}

#[test]
fn probes_that_consumers_count_are_never_evidence() {
    let mut counters = Counters::default();
    look(&mut counters, &[file("a", 1, &[("x", 0)]), file("b", 1, &[("x", 0)])], 0);
    let counted = [file("a", 1, &[("x", 0), ("y", 3)]), file("b", 1, &[("x", 0), ("y", 2)])];
    assert_eq!(look(&mut counters, &counted, 5), []);
    let one_more = [file("a", 1, &[("x", 0), ("y", 3)]), file("b", 1, &[("x", 0), ("y", 3)])];
    assert_eq!(look(&mut counters, &one_more, 5), rise("b", 1));
}

#[test]
fn a_restarted_consumer_keeps_what_it_had_counted_and_nothing_is_counted_twice() {
    let mut counters = Counters::default();
    look(&mut counters, &[file("a", 1, &[("y", 0)])], 0);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("y", 4)])], 4), [], "four probes");
    assert_eq!(look(&mut counters, &[file("a", 9, &[("y", 1)])], 4), rise("a", 1), "a new life, and one delivery");
    assert_eq!(look(&mut counters, &[file("a", 1, &[("y", 4)])], 4), [], "the old file was put back");
    assert_eq!(look(&mut counters, &[file("a", 9, &[("y", 1)])], 4), []);
}

#[test]
fn a_counter_that_goes_down_and_up_again_tells_nothing_new() {
    let mut counters = Counters::default();
    look(&mut counters, &[file("a", 1, &[("y", 5)])], 0);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("y", 0)])], 0), []);
    assert_eq!(look(&mut counters, &[file("a", 1, &[])], 0), []);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("y", 5), ("y", 5)])], 0), []);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("y", 6), ("y", 5)])], 0), rise("a", 1));
}

#[test]
fn a_stranger_or_an_older_life_brings_no_old_counts_of_a_known_key() {
    let mut counters = Counters::default();
    look(&mut counters, &[file("a", 5, &[("x", 1)])], 0);
    assert_eq!(look(&mut counters, &[file("a", 5, &[("x", 1)]), file("b", 1, &[("x", 700)])], 0), []);
    assert_eq!(look(&mut counters, &[file("a", 2, &[("x", 900)])], 0), []);
    assert_eq!(look(&mut counters, &[file("a", 2, &[("x", 901)])], 0), rise("a", 1));
}

#[test]
fn a_rise_over_a_gap_is_not_dated() {
    let mut counters = Counters::default();
    look(&mut counters, &[file("a", 1, &[("x", 1)])], 0);
    look(&mut counters, &[], 0);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 2)])], 0), vec![("a".to_owned(), 1, false)], "its file was away");
    let mut counters = reload(&counters);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 3)])], 0), vec![("a".to_owned(), 1, false)], "a new process");
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 4)])], 0), rise("a", 1));
}

#[test]
fn an_undated_count_that_probes_had_hidden_does_not_pass_for_a_dated_one() {
    let mut counters = Counters::default();
    look(&mut counters, &[file("a", 1, &[("x", 0)])], 0);
    let mut counters = reload(&counters);
    assert_eq!(look(&mut counters, &[file("a", 1, &[("x", 1)])], 1), [], "a delivery, while a probe is under way");
    let after = look(&mut counters, &[file("a", 1, &[("x", 2)])], 1);
    assert_eq!(after, vec![("a".to_owned(), 1, false)], "the probe is counted, and uncovers the old delivery");
}

/// What can happen between two looks.
#[derive(Debug, Clone)]
enum Happening {
    Delivery {
        replica: usize,
    },
    /// Counted before it is sent; it may get lost, and the consumer may not count it.
    Probe {
        replica: usize,
        counted: bool,
    },
    Restart {
        replica: usize,
    },
    /// The file is away, or unreadable, at the next look.
    Hidden {
        replica: usize,
    },
    HookturnRestarts,
    Look,
}

fn happening() -> impl Strategy<Value = Happening> {
    let replica = 0..3usize;
    prop_oneof![
        3 => replica.clone().prop_map(|replica| Happening::Delivery { replica }),
        3 => (replica.clone(), any::<bool>()).prop_map(|(replica, counted)| Happening::Probe { replica, counted }),
        1 => replica.clone().prop_map(|replica| Happening::Restart { replica }),
        1 => replica.prop_map(|replica| Happening::Hidden { replica }),
        1 => Just(Happening::HookturnRestarts),
        4 => Just(Happening::Look),
    ]
}

/// Replicas as they really are.
struct World {
    lives: [(i64, u64); 3],
    hidden: [bool; 3],
    probes: u64,
    deliveries: u64,
}

impl World {
    fn look(&mut self, counters: &mut Counters) -> u64 {
        let names = ["a", "b", "c"];
        let files: Vec<StatusCounts> = (0..3)
            .filter(|replica| !self.hidden[*replica])
            .map(|replica| file(names[replica], self.lives[replica].0, &[("x", self.lives[replica].1)]))
            .collect();
        self.hidden = [false; 3];
        counters.absorb(&files, |_| self.probes).iter().map(|rise| rise.by).sum()
    }
}

proptest! {
    #[test]
    fn never_more_is_reported_than_was_delivered(happenings in proptest::collection::vec(happening(), 0..200)) {
        let mut world = World { lives: [(1, 0); 3], hidden: [false; 3], probes: 0, deliveries: 0 };
        let mut counters = Counters::default();
        let mut reported = world.look(&mut counters);
        for happening in happenings {
            match happening {
                Happening::Delivery { replica } => {
                    world.deliveries += 1;
                    world.lives[replica].1 += 1;
                }
                Happening::Probe { replica, counted } => {
                    world.probes += 1;
                    world.lives[replica].1 += u64::from(counted);
                }
                Happening::Restart { replica } => world.lives[replica] = (world.lives[replica].0 + 1, 0),
                Happening::Hidden { replica } => world.hidden[replica] = true,
                Happening::HookturnRestarts => counters = reload(&counters),
                Happening::Look => reported += world.look(&mut counters),
            }
            prop_assert!(reported <= world.deliveries, "{} reported of {}", reported, world.deliveries);
        }
    }

    #[test]
    fn with_nothing_lost_every_delivery_is_reported(steps in proptest::collection::vec((0..3usize, any::<bool>(), any::<bool>()), 0..100)) {
        let mut world = World { lives: [(1, 0); 3], hidden: [false; 3], probes: 0, deliveries: 0 };
        let mut counters = Counters::default();
        let mut reported = world.look(&mut counters);
        for (replica, genuine, restart) in steps {
            *(if genuine { &mut world.deliveries } else { &mut world.probes }) += 1;
            world.lives[replica].1 += 1;
            reported += world.look(&mut counters);
            prop_assert_eq!(reported, world.deliveries);
            if restart {
                world.lives[replica] = (world.lives[replica].0 + 1, 0);
            }
        }
    }

    #[test]
    fn no_input_whatever_makes_it_panic(files in proptest::collection::vec((0..4i64, 0..3usize, 0..3usize, any::<u64>()), 0..60), probes: u64) {
        let mut counters = Counters::default();
        for (started, replica, key, verified) in files {
            let file = file(["a", "b", "c"][replica], started, &[(["x", "y", "z"][key], verified)]);
            counters.absorb(&[file], |_| probes);
        }
    }
}
