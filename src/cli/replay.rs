//! `replay`: the event log of a webhook, worked out again by the very function that the daemon runs.
//!
//! The log is the first thing to ask for when a rotation went another way than expected: it holds every event and no secret.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    exit::{Code, Stop},
    out, time,
};
use crate::{
    config::Config,
    rotation::{self, Difference, Entry, Record},
    store::{EventLog, Logged, Sqlite, Store, StoreError},
};

#[derive(Args)]
pub struct Replay {
    /// The webhook whose log in the store is replayed; a running daemon is not disturbed
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    /// Replay a log that was exported elsewhere instead
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    file: Option<PathBuf>,
    /// Write the log to a file, one line of JSON per event: no secret is in it
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    export: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

/// The first line of an exported log.
#[derive(Serialize, Deserialize)]
struct Head {
    /// The version that wrote the file.
    hookturn: String,
    webhook: String,
    /// What the log leads to, as the store had it.
    record: Record,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Replay {
    pub async fn run(self, config: &Path) -> Result<Code, Stop> {
        let (webhook, log) = match (&self.file, self.name) {
            (Some(file), _) => read(file)?,
            (None, name) => {
                let name = name.unwrap_or_default();
                let log = of_store(&Config::load(config)?, &name).await?;
                (name, log)
            }
        };
        if let Some(file) = &self.export {
            export(file, &webhook, &log).map_err(|error| Stop::new(Code::Unreachable, format!("{}: {error}", file.display())))?;
            eprintln!("hookturn: {} holds the event log of {webhook}, {} lines", file.display(), log.entries.len() + 1);
        }
        let replayed = replay(webhook, &log)?;
        match self.json {
            true => out::json(&replayed)?,
            false => out::line(&replayed.text())?,
        }
        Ok(if replayed.parts_at.is_none() { Code::Done } else { Code::PersonNeeded })
    }
}

async fn of_store(config: &Config, webhook: &str) -> Result<EventLog, Stop> {
    let path = &config.store.path;
    let unreadable = |error: StoreError| {
        let code = match error {
            StoreError::Damaged { .. } | StoreError::TooNew { .. } => Code::PersonNeeded,
            _ => Code::Unreachable,
        };
        Stop::new(code, error.to_string())
    };
    let found = match Sqlite::look(path).await.map_err(unreadable)? {
        None => None,
        Some(store) => {
            let log = store.event_log(webhook).await;
            store.close().await;
            log.map_err(unreadable)?
        }
    };
    found.ok_or_else(|| Stop::usage(format!("{} has nothing of a webhook {webhook:?} yet", path.display())))
}

fn export(file: &Path, webhook: &str, log: &EventLog) -> std::io::Result<()> {
    let mut text =
        serde_json::to_vec(&Head { hookturn: VERSION.to_owned(), webhook: webhook.to_owned(), record: log.record.clone() })?;
    for entry in &log.entries {
        text.push(b'\n');
        serde_json::to_writer(&mut text, entry)?;
    }
    text.push(b'\n');
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    out.write_all(&text)
}

fn read(file: &Path) -> Result<(String, EventLog), Stop> {
    let unreadable = |why: String| Stop::new(Code::Unreachable, format!("{}: {why}", file.display()));
    let open = fs::File::open(file).map_err(|error| unreadable(error.to_string()))?;
    let mut lines = BufReader::new(open).lines().enumerate().map(|(at, line)| {
        let line = line.map_err(|error| unreadable(error.to_string()))?;
        Ok::<_, Stop>((at + 1, line))
    });
    let strange = |at: usize, error: &str| unreadable(format!("line {at} is not of an event log of this hookturn ({error})"));
    let (at, first) = lines.next().unwrap_or_else(|| Err(unreadable("it is empty".to_owned())))?;
    let head: Head = decode(&first).map_err(|error| strange(at, &error))?;
    if head.hookturn != VERSION {
        eprintln!(
            "hookturn: the log was written by version {}, this is {VERSION}: what differs may be the version",
            head.hookturn
        );
    }
    let mut entries = Vec::new();
    for line in lines {
        let (at, line) = line?;
        entries.push(decode(&line).map_err(|error| strange(at, &error))?);
    }
    Ok((head.webhook, EventLog { record: head.record, entries }))
}

fn decode<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

/// What came of it.
#[derive(Serialize)]
struct Replayed {
    webhook: String,
    events: u64,
    /// Processes that took the webhook over.
    lives: u64,
    from: i64,
    to: i64,
    seq: u64,
    phase: &'static str,
    /// `None`: the log leads to the record that the store has.
    parts_at: Option<Parting>,
}

/// Where log and replay part.
#[derive(Serialize)]
struct Parting {
    /// The entry's number; `None`: after the last one, where the record in the store is another.
    event: Option<u64>,
    at: i64,
    what: String,
    entry: Value,
    /// `field: recorded ..., replayed ...`
    differences: Vec<String>,
}

fn replay(webhook: String, log: &EventLog) -> Result<Replayed, Stop> {
    let (Some(first), Some(last)) = (log.entries.first(), log.entries.last()) else {
        return Err(Stop::new(Code::NotYet, format!("{webhook}: no event was recorded yet")));
    };
    let mut replay = rotation::Replay::default();
    let mut parts_at = None;
    for logged in &log.entries {
        let entry: Entry = serde_json::from_value(logged.entry.clone()).map_err(|error| {
            let text = format!("{webhook}: event {} was written by another version of hookturn ({error})", logged.number);
            Stop::new(Code::PersonNeeded, text)
        })?;
        if let Err(difference) = replay.take(&entry) {
            parts_at = Some(parting(logged, &difference));
            break;
        }
    }
    if parts_at.is_none()
        && let Some(ours) = replay.record()
        && *ours != log.record
    {
        parts_at = Some(Parting {
            event: None,
            at: last.at,
            what: "the record in the store is not the one that the log leads to".to_owned(),
            entry: Value::Null,
            differences: fields(&log.record, ours),
        });
    }
    Ok(Replayed {
        webhook,
        events: replay.events(),
        lives: replay.lives(),
        from: first.at,
        to: last.at,
        seq: log.record.seq,
        phase: log.record.phase.name(),
        parts_at,
    })
}

fn parting(logged: &Logged, difference: &Difference) -> Parting {
    let differences = match difference {
        Difference::OtherStart { recorded, replayed } | Difference::OtherRecord { recorded, replayed } => {
            fields(&**recorded, &**replayed)
        }
        Difference::OtherVolatile { recorded, replayed } => fields(&**recorded, &**replayed),
        Difference::OtherEffects { recorded, replayed } => vec![pair("effects", &value(recorded), &value(replayed))],
        Difference::NoStart | Difference::Refused(_) => Vec::new(),
    };
    Parting { event: Some(logged.number), at: logged.at, what: difference.to_string(), entry: shown(&logged.entry), differences }
}

/// The event alone: what it led to is told by the differences.
fn shown(entry: &Value) -> Value {
    entry.pointer("/took/event").cloned().unwrap_or(Value::Null)
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// The fields in which two of a kind differ.
fn fields(recorded: &impl Serialize, replayed: &impl Serialize) -> Vec<String> {
    let (recorded, replayed) = (value(recorded), value(replayed));
    let names = recorded.as_object().into_iter().flatten().map(|(name, _)| name);
    names.filter(|name| recorded[*name] != replayed[*name]).map(|name| pair(name, &recorded[name], &replayed[name])).collect()
}

fn pair(name: &str, recorded: &Value, replayed: &Value) -> String {
    format!("{name}: recorded {recorded}, replayed {replayed}")
}

impl Replayed {
    fn text(&self) -> String {
        let counted = format!(
            "{}: {} {} of {} {}, {} to {}",
            self.webhook,
            self.events,
            if self.events == 1 { "event" } else { "events" },
            self.lives,
            if self.lives == 1 { "process" } else { "processes" },
            time::at(self.from),
            time::at(self.to)
        );
        let Some(parting) = &self.parts_at else {
            return format!("{counted}\nreplayed to the record in the store (seq {}, phase {})", self.seq, self.phase);
        };
        let place = parting.event.map_or_else(|| "after the last event".to_owned(), |number| format!("event {number}"));
        let mut lines = vec![counted, format!("{place}, {}: {}", time::at(parting.at), parting.what)];
        if !parting.entry.is_null() {
            lines.push(format!("  {}", parting.entry));
        }
        lines.extend(parting.differences.iter().map(|difference| format!("  {difference}")));
        lines.join("\n")
    }
}
