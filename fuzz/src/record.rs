use std::fmt::Debug;

use hookturn::rotation::{Entry, Event, Note, Op, Record, Replay, Volatile, step, wake_in};
use serde::{Serialize, de::DeserializeOwned};

/// Rows as they lie in the store: a record, a line of the event log or of the journal, one per line.
///
/// What is read is written as it was, and the core makes something of it or refuses, whatever it says.
pub fn record(data: &[u8]) {
    let mut replay = Replay::default();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        if let Some(record) = read::<Record>(line) {
            lives_with(record);
        }
        read::<Note>(line);
        if let Some(entry) = read::<Entry>(line) {
            let _ = replay.take(&entry);
            if let Entry::Start { record, volatile } = entry {
                every_event(&record, &volatile);
            }
        }
    }
}

fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(line: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(line).ok()?;
    let text = serde_json::to_string(&read).expect("what was read can be written");
    let again: T = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(again, read, "{text}");
    Some(read)
}

fn lives_with(record: Record) {
    for restored in [false, true] {
        let boot = Event::Boot { policy: record.policy, identity: record.identity, restored, dark: 1_000 };
        if let Ok(done) = step(&record, &Volatile::default(), &boot) {
            every_event(&done.record, &done.volatile);
        }
    }
}

fn every_event(record: &Record, volatile: &Volatile) {
    let events = [
        Event::Tick { elapsed: 5_000, observed: 5_000 },
        Event::Tick { elapsed: u64::MAX, observed: u64::MAX },
        Event::Op(Op::Resume),
        Event::Op(Op::Abort),
        Event::Op(Op::Rollback),
        Event::Op(Op::Compromise),
    ];
    for event in events {
        if let Ok(done) = step(record, volatile, &event) {
            assert!(done.record.generation >= record.generation && done.record.attempts >= record.attempts);
            assert!(wake_in(&done.record, &done.volatile).is_none_or(|wake| wake > 0));
        }
    }
}
