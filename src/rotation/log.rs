//! The event log: everything that [`step`] was given and what came of it, so that it can be worked out again, elsewhere.
//!
//! It holds what the core knows, so no secret. An event that changed nothing is not in it, and ticks that came to nothing are
//! one tick: a webhook that only waits adds nothing to its log, however many deliveries pass.

use serde::{Deserialize, Serialize};

use super::{Effect, Event, Millis, Record, Refused, Volatile, step};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// What the events after it start from: a process has taken the webhook over, or the log may be cut before here.
    Start { record: Box<Record>, volatile: Box<Volatile> },
    /// One event, what was to be done about it, and the record after it, where it changed.
    Took {
        event: Event,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        effects: Vec<Effect>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<Record>>,
    },
}

/// Writes the log of one webhook in one process. What it holds is handed over with each commit, so that the log in the store
/// and the record in the store are always of one moment.
#[derive(Debug)]
pub struct Recorder {
    entries: Vec<Entry>,
    since_start: usize,
    /// The newest entry is a tick that came to nothing; what there was before it.
    quiet: Option<Quiet>,
}

#[derive(Debug)]
struct Quiet {
    before: (Record, Volatile),
    elapsed: Millis,
    observed: Millis,
}

/// So many events after a start there is another one.
const START_EVERY: usize = 500;

impl Recorder {
    /// The log of a process that begins with this record.
    pub fn begin(record: &Record) -> Recorder {
        let mut recorder = Recorder { entries: Vec::new(), since_start: 0, quiet: None };
        recorder.start(record, &Volatile::default());
        recorder
    }

    /// Entries that were not handed over yet.
    pub fn waiting(&self) -> usize {
        self.entries.len()
    }

    pub fn hand_over(&mut self) -> Vec<Entry> {
        self.quiet = None;
        std::mem::take(&mut self.entries)
    }

    /// Notes an event that was taken: what there was before it, and what came of it.
    pub fn note(&mut self, before: (Record, Volatile), event: &Event, effects: &[Effect], after: (&Record, &Volatile)) {
        let changed = before.0 != *after.0;
        if !changed && effects.is_empty() && before.1 == *after.1 {
            return;
        }
        if let Event::Tick { elapsed, observed } = event
            && self.joins_the_last(*elapsed, *observed, effects, after)
        {
            return;
        }
        let record = changed.then(|| Box::new(after.0.clone()));
        self.quiet = match event {
            Event::Tick { elapsed, observed } if !changed && effects.is_empty() => {
                Some(Quiet { before, elapsed: *elapsed, observed: *observed })
            }
            _ => None,
        };
        self.entries.push(Entry::Took { event: event.clone(), effects: effects.to_vec(), record });
        self.since_start += 1;
        if self.since_start >= START_EVERY {
            self.start(after.0, after.1);
        }
    }

    fn start(&mut self, record: &Record, volatile: &Volatile) {
        self.entries.push(Entry::Start { record: Box::new(record.clone()), volatile: Box::new(volatile.clone()) });
        self.since_start = 0;
        self.quiet = None;
    }

    /// Makes one tick of the last one and this one, where that comes to the very same. It is tried, not assumed.
    fn joins_the_last(&mut self, elapsed: Millis, observed: Millis, effects: &[Effect], after: (&Record, &Volatile)) -> bool {
        let (Some(mut quiet), Some(last)) = (self.quiet.take(), self.entries.last_mut()) else { return false };
        quiet.elapsed = quiet.elapsed.saturating_add(elapsed);
        quiet.observed = quiet.observed.saturating_add(observed);
        let event = Event::Tick { elapsed: quiet.elapsed, observed: quiet.observed };
        let Ok(done) = step(&quiet.before.0, &quiet.before.1, &event) else { return false };
        if done.record != *after.0 || done.volatile != *after.1 || done.effects != effects {
            return false;
        }
        let changed = quiet.before.0 != *after.0;
        *last = Entry::Took { event, effects: effects.to_vec(), record: changed.then(|| Box::new(after.0.clone())) };
        self.quiet = (!changed && effects.is_empty()).then_some(quiet);
        true
    }
}

/// Works a log out again, entry by entry.
#[derive(Debug, Default)]
pub struct Replay {
    state: Option<(Record, Volatile)>,
    events: u64,
    lives: u64,
}

/// Where the log and [`step`] part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("there is no record to begin with")]
    NoStart,
    /// A process began with, or the log goes on from, another record than the events before it lead to.
    #[error("the log goes on from another record than the events before lead to")]
    OtherStart { recorded: Box<Record>, replayed: Box<Record> },
    #[error("the log goes on from the same record, but what the process knew beside it differs")]
    OtherVolatile { recorded: Box<Volatile>, replayed: Box<Volatile> },
    #[error("{0}; when it was recorded it was taken")]
    Refused(Refused),
    #[error("the event leads to another record")]
    OtherRecord { recorded: Box<Record>, replayed: Box<Record> },
    #[error("the event leads to the same record and to other effects")]
    OtherEffects { recorded: Vec<Effect>, replayed: Vec<Effect> },
}

impl Replay {
    /// # Errors
    /// The first [`Difference`]. Nothing that comes after it would mean anything.
    pub fn take(&mut self, entry: &Entry) -> Result<(), Difference> {
        match entry {
            Entry::Start { record, volatile } => self.start(record, volatile),
            Entry::Took { event, effects, record } => {
                self.events += 1;
                self.event(event, effects, record.as_deref())
            }
        }
    }

    /// The record that the log leads to.
    pub fn record(&self) -> Option<&Record> {
        self.state.as_ref().map(|(record, _)| record)
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many processes took the webhook over.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    fn start(&mut self, record: &Record, volatile: &Volatile) -> Result<(), Difference> {
        // A process that has just begun knows nothing but the record.
        let born = !volatile.booted;
        self.lives += u64::from(born || self.state.is_none());
        if let Some((ours, known)) = &self.state {
            if ours != record {
                return Err(Difference::OtherStart { recorded: Box::new(record.clone()), replayed: Box::new(ours.clone()) });
            }
            if !born && known != volatile {
                return Err(Difference::OtherVolatile {
                    recorded: Box::new(volatile.clone()),
                    replayed: Box::new(known.clone()),
                });
            }
        }
        self.state = Some((record.clone(), volatile.clone()));
        Ok(())
    }

    fn event(&mut self, event: &Event, effects: &[Effect], recorded: Option<&Record>) -> Result<(), Difference> {
        let Some((before, volatile)) = &self.state else { return Err(Difference::NoStart) };
        let done = step(before, volatile, event).map_err(Difference::Refused)?;
        let recorded = recorded.unwrap_or(before);
        if done.record != *recorded {
            return Err(Difference::OtherRecord { recorded: Box::new(recorded.clone()), replayed: Box::new(done.record) });
        }
        if done.effects != effects {
            return Err(Difference::OtherEffects { recorded: effects.to_vec(), replayed: done.effects });
        }
        self.state = Some((done.record, done.volatile));
        Ok(())
    }
}
