//! What is so of every sequence of events, found by trying many: the model proves small worlds whole, this tries large ones.
//!
//! `PROPTEST_CASES=20000 cargo test --release --test properties` looks longer, and elsewhere each time.

#[path = "properties/laws.rs"]
mod laws;
#[path = "properties/life.rs"]
mod life;
#[path = "properties/strange.rs"]
mod strange;

use hookturn::rotation::{Entry, Event, Record, Recorder, Replay, Volatile, step, wake_in};
use laws::Turn;
use life::Life;
use proptest::{collection::vec, prelude::*, test_runner::RngSeed};
use serde::{Serialize, de::DeserializeOwned};

fn replayed(log: &[Entry]) -> Result<Replay, TestCaseError> {
    let mut replay = Replay::default();
    for (at, entry) in log.iter().enumerate() {
        // Through its text, as out of a store.
        let entry = serde_json::from_str(&serde_json::to_string(entry).expect("text")).expect("an entry");
        replay.take(&entry).map_err(|difference| TestCaseError::fail(format!("entry {at}: {difference:?}")))?;
    }
    Ok(replay)
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(value).expect("text");
    prop_assert_eq!(&serde_json::from_str::<T>(&text).expect("the same"), value);
    Ok(())
}

/// The same cases each time, unless more are asked for.
fn config() -> ProptestConfig {
    let more = std::env::var_os("PROPTEST_CASES").is_some();
    let rng_seed = if more { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig {
        failure_persistence: None,
        cases: if more { ProptestConfig::default().cases } else { 2_000 },
        rng_seed,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// From an adoption on, through everything that people, DialNexa, keystores and crashes do.
    #[test]
    fn a_life_keeps_every_law_and_its_log_replays_to_its_record(policy in life::policies(), acts in life::acts()) {
        let mut life = Life::adopted(policy);
        for act in &acts {
            life.act(act);
        }
        prop_assert!(life.broken.is_none(), "{}", life.broken.unwrap_or_default());
        let (record, volatile) = (life.record.clone(), life.volatile.clone());
        let replay = replayed(life.whole_log())?;
        prop_assert_eq!(replay.record(), Some(&record));
        // What the process knew is in no commit; what it will do next shows that it was the same.
        let next = Event::Tick { elapsed: 1, observed: 1 };
        prop_assert!(step(&record, &volatile, &next).is_ok());
    }

    /// Faults end, a person answers the holds: then every rotation ends too.
    #[test]
    fn from_anywhere_in_a_life_a_world_without_faults_comes_to_rest(policy in life::policies(), acts in life::acts()) {
        let mut life = Life::adopted(policy);
        for act in &acts {
            life.act(act);
        }
        life.let_it_finish().map_err(TestCaseError::fail)?;
        prop_assert!(life.broken.is_none(), "{}", life.broken.unwrap_or_default());
    }

    /// Of records and events without any sense it makes something or an error, and never falls over.
    #[test]
    fn of_nonsense_step_makes_something_and_keeps_the_laws_that_need_no_past(
        record in strange::record(),
        volatile in strange::volatile(),
        events in vec((strange::event(), any::<bool>()), 1..8),
    ) {
        let (mut record, mut volatile) = (record, volatile);
        let mut recorder = Recorder::begin(&record);
        let (first, mut log) = (record.clone(), Vec::new());
        for (event, fitting) in events {
            let event = if fitting { strange::answered(&volatile, event) } else { event };
            let Ok(done) = step(&record, &volatile, &event) else { continue };
            if let Err(broken) = laws::anywhere(&Turn { record: &record, volatile: &volatile, event: &event, step: &done }) {
                return Err(TestCaseError::fail(format!("{broken}: {event:?}")));
            }
            recorder.note((record, volatile), &event, &done.effects, (&done.record, &done.volatile));
            (record, volatile) = (done.record, done.volatile);
            prop_assert!(wake_in(&record, &volatile).is_none_or(|wake| wake > 0));
        }
        log.append(&mut recorder.hand_over());
        prop_assert_eq!(&log[0], &Entry::Start { record: Box::new(first), volatile: Box::new(Volatile::default()) });
    }

    #[test]
    fn what_is_stored_is_read_back_as_it_was(record in strange::record(), volatile in strange::volatile(), event in strange::event()) {
        round_trip::<Record>(&record)?;
        round_trip::<Volatile>(&volatile)?;
        round_trip::<Event>(&event)?;
        round_trip(&Entry::Start { record: Box::new(record.clone()), volatile: Box::new(volatile) })?;
        round_trip(&Entry::Took { event, effects: Vec::new(), record: Some(Box::new(record)) })?;
    }
}
