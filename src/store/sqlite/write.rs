//! One batch, one transaction, one fsync.
//!
//! Each statement that is awaited by itself is a hop to SQLite's thread and back, which costs more than most statements do. So
//! what a webhook changes is one script, run in one hop, and what its statements must have come to is looked at as they end.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use super::{
    fault::Fault,
    read,
    row::{Columns, integer, unsigned},
    script::{Outcome, Script},
    sum::Sum,
};
use crate::{
    boundary::{self, Boundary},
    rotation::{Entry, KidSet, Record},
    store::{self, Attempt, Batch, Change, Evidence, LOG_KEPT, NewLine, Probe, Stamp, StoredSecret, UnixMillis},
};

/// The write lock is taken at once: a reader that turns writer is refused as busy, whatever the time-out. An error that is no
/// refusal leaves the connection in the middle of the transaction: it is to be dropped.
pub(super) async fn commit(conn: &mut SqliteConnection, epoch: u64, batch: &Batch) -> Result<(), Fault> {
    let mut begun = false;
    match write(conn, epoch, batch, &mut begun).await {
        Ok(()) => {
            boundary::reach(Boundary::InCommit);
            sqlx::query("COMMIT").execute(conn).await?;
            Ok(())
        }
        Err(fault) => {
            if begun && fault.is_refusal() {
                sqlx::query("ROLLBACK").execute(conn).await?;
            }
            Err(fault)
        }
    }
}

async fn write(conn: &mut SqliteConnection, epoch: u64, batch: &Batch, begun: &mut bool) -> Result<(), Fault> {
    let mut changes = batch.changes.iter();
    // The transaction begins in the same hop as its first change.
    let mut script = Script::default();
    script.add("BEGIN IMMEDIATE").add("SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'epoch'");
    let first = changes.next();
    let due = fill(conn, &mut script, first, batch).await?;
    let Outcome { changed, number } = script.run(conn).await?;
    *begun = true;
    let found = unsigned(number.ok_or(sqlx::Error::RowNotFound)?)?;
    if found != epoch {
        return Err(Fault::Fenced { found, ours: epoch });
    }
    settle(conn, first, due, &changed).await?;
    for change in changes {
        let mut script = Script::default();
        let due = fill(conn, &mut script, Some(change), batch).await?;
        let Outcome { changed, .. } = script.run(conn).await?;
        settle(conn, Some(change), due, &changed).await?;
    }
    Ok(())
}

/// What a statement must have changed, or else there is this to be said.
enum Due<'a> {
    Record(&'a Record),
    Secret(&'a StoredSecret),
}

/// What statements must have changed, by their place in the script.
type Dues<'a> = BTreeMap<usize, Due<'a>>;

/// Looks at what changed nothing.
async fn settle(conn: &mut SqliteConnection, change: Option<&Change>, dues: Dues<'_>, changed: &[u64]) -> Result<(), Fault> {
    let webhook = change.map_or("", |change| &change.webhook);
    for (place, due) in dues {
        match due {
            _ if changed.get(place) != Some(&0) => {}
            Due::Record(record) => return Err(conflict(conn, webhook, record).await?),
            Due::Secret(secret) => same_secret(conn, webhook, secret).await?,
        }
    }
    Ok(())
}

/// Adds to the script what writes the change.
async fn fill<'a>(
    conn: &mut SqliteConnection,
    script: &mut Script,
    change: Option<&'a Change>,
    batch: &Batch,
) -> Result<Dues<'a>, Fault> {
    let mut due = Dues::new();
    let Some(change) = change else { return Ok(due) };
    let (webhook, stamp, at) = (change.webhook.as_str(), &batch.stamp, batch.at);
    let attempts = merged(conn, webhook, &change.attempts).await?;
    if let Some(record) = &change.record {
        due.insert(script.len(), Due::Record(record));
        write_record(script, webhook, record, stamp)?;
    }
    for secret in &change.secrets {
        due.insert(script.len(), Due::Secret(secret));
        write_secret(script, webhook, secret)?;
    }
    for line in &change.journal {
        write_line(script, webhook, line, at)?;
    }
    for entry in &change.events {
        write_event(script, webhook, entry, at)?;
    }
    for attempt in attempts.values() {
        write_attempt(script, webhook, attempt)?;
    }
    for evidence in &change.evidence {
        write_evidence(script, webhook, evidence)?;
    }
    for probe in &change.probes {
        write_probe(script, webhook, probe)?;
    }
    if let Some(kept) = &change.probes_kept {
        forget_probes(script, webhook, kept)?;
    }
    for (name, value) in &change.memos {
        write_memo(script, webhook, name, value)?;
    }
    Ok(due)
}

fn forget_probes(script: &mut Script, webhook: &str, kept: &KidSet) -> Result<(), Fault> {
    let old = "DELETE FROM probe WHERE webhook = ? AND ifnull(kid, '') NOT IN (SELECT value FROM json_each(?))";
    script.add(old).bind(webhook)?.bind(json(kept)?)?;
    Ok(())
}

fn write_record(script: &mut Script, webhook: &str, record: &Record, stamp: &Stamp) -> Result<(), Fault> {
    let columns = Columns::of(webhook, record, stamp)?;
    script
        .add(
            "INSERT INTO webhook (name, seq, record, boot_id, boottime_ms, checksum) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, record = excluded.record, boot_id = excluded.boot_id, \
             boottime_ms = excluded.boottime_ms, checksum = excluded.checksum WHERE excluded.seq > webhook.seq",
        )
        .bind(columns.name)?
        .bind(columns.seq)?
        .bind(columns.record)?
        .bind(columns.boot_id)?
        .bind(columns.boottime_ms)?
        .bind(columns.checksum)?;
    Ok(())
}

async fn conflict(conn: &mut SqliteConnection, webhook: &str, record: &Record) -> Result<Fault, Fault> {
    let stored: i64 = sqlx::query_scalar("SELECT seq FROM webhook WHERE name = ?").bind(webhook).fetch_one(conn).await?;
    Ok(Fault::Conflict { webhook: webhook.to_owned(), offered: record.seq, stored: unsigned(stored)? })
}

fn write_secret(script: &mut Script, webhook: &str, secret: &StoredSecret) -> Result<(), Fault> {
    script
        .add(
            "INSERT INTO secret (webhook, kid, sealed, origin, created) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (webhook, kid) DO NOTHING",
        )
        .bind(webhook)?
        .bind(secret.kid.as_str())?
        .bind(secret.sealed.0.as_slice())?
        .bind(json_word(&secret.origin)?)?
        .bind(secret.created)?;
    Ok(())
}

/// A secret that was there already is the same one.
async fn same_secret(conn: &mut SqliteConnection, webhook: &str, secret: &StoredSecret) -> Result<(), Fault> {
    let stored: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM secret WHERE webhook = ? AND kid = ?")
        .bind(webhook)
        .bind(secret.kid.as_str())
        .fetch_one(conn)
        .await?;
    if stored == secret.sealed.0 { Ok(()) } else { Err(Fault::Contradiction(store::other_secret(webhook, secret.kid))) }
}

fn write_line(script: &mut Script, webhook: &str, line: &NewLine, at: UnixMillis) -> Result<(), Fault> {
    let (rotation, seq, note) = (integer(line.rotation)?, integer(line.seq)?, json(&line.note)?);
    let sum = Sum::of("journal").text(webhook).integer(at).integer(rotation).integer(seq).text(&line.actor).text(&note);
    script
        .add("INSERT INTO journal (webhook, at, rotation, seq, actor, note, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(webhook)?
        .bind(at)?
        .bind(rotation)?
        .bind(seq)?
        .bind(line.actor.as_str())?
        .bind(note)?
        .bind(sum.done())?;
    Ok(())
}

/// Where a start is written, what is no longer kept goes: everything before another start.
fn write_event(script: &mut Script, webhook: &str, entry: &Entry, at: UnixMillis) -> Result<(), Fault> {
    let start = matches!(entry, Entry::Start { .. });
    let text = json(entry)?;
    let sum = Sum::of("event").text(webhook).integer(at).integer(i64::from(start)).text(&text);
    script
        .add(
            "INSERT INTO event (webhook, at, start, entry, checksum, number) VALUES (?, ?, ?, ?, ?, \
             (SELECT ifnull(max(number), 0) + 1 FROM event WHERE webhook = ?))",
        )
        .bind(webhook)?
        .bind(at)?
        .bind(start)?
        .bind(text)?
        .bind(sum.done())?
        .bind(webhook)?;
    if start {
        script
            .add(
                "DELETE FROM event WHERE webhook = ? AND number < (SELECT max(number) FROM event WHERE webhook = ? AND start \
                 AND number <= (SELECT max(number) FROM event WHERE webhook = ?) - ?)",
            )
            .bind(webhook)?
            .bind(webhook)?
            .bind(webhook)?
            .bind(integer(LOG_KEPT)?)?;
    }
    Ok(())
}

/// The attempts as they are to be stored. A number keeps its secret for ever: which secrets may still be applied is read from
/// it. What is known of its end is kept.
async fn merged(conn: &mut SqliteConnection, webhook: &str, attempts: &[Attempt]) -> Result<BTreeMap<u64, Attempt>, Fault> {
    let mut merged: BTreeMap<u64, Attempt> = BTreeMap::new();
    for attempt in attempts {
        let stored = match merged.remove(&attempt.number) {
            Some(known) => Some(known),
            None => {
                let stored = sqlx::query("SELECT * FROM attempt WHERE webhook = ? AND number = ?");
                let stored = stored.bind(webhook).bind(integer(attempt.number)?).fetch_optional(&mut *conn).await?;
                stored.as_ref().map(read::attempt).transpose()?
            }
        };
        if stored.as_ref().is_some_and(|stored| stored.kid != attempt.kid) {
            return Err(Fault::Contradiction(store::other_attempt(webhook, attempt.number)));
        }
        let mut first = stored.unwrap_or_else(|| attempt.clone());
        first.ended_at = attempt.ended_at.or(first.ended_at);
        first.outcome = attempt.outcome.clone().or(first.outcome);
        merged.insert(first.number, first);
    }
    Ok(merged)
}

fn write_attempt(script: &mut Script, webhook: &str, attempt: &Attempt) -> Result<(), Fault> {
    let (number, rotation, kid) = (integer(attempt.number)?, integer(attempt.rotation)?, attempt.kid);
    let outcome = attempt.outcome.as_deref();
    let sum = Sum::of("attempt").text(webhook).integer(number).integer(rotation).text(kid.as_str());
    let sum = sum.integer(attempt.intent_at).maybe_integer(attempt.ended_at).maybe_text(outcome);
    script
        .add(
            "INSERT INTO attempt (webhook, number, rotation, kid, intent_at, ended_at, outcome, checksum) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (webhook, number) DO UPDATE SET ended_at = excluded.ended_at, \
             outcome = excluded.outcome, checksum = excluded.checksum",
        )
        .bind(webhook)?
        .bind(number)?
        .bind(rotation)?
        .bind(kid.as_str())?
        .bind(attempt.intent_at)?
        .bind(attempt.ended_at)?
        .bind(outcome)?
        .bind(sum.done())?;
    Ok(())
}

fn write_evidence(script: &mut Script, webhook: &str, evidence: &Evidence) -> Result<(), Fault> {
    let detail = json(&evidence.detail)?;
    let sum = Sum::of("evidence").text(webhook).text(evidence.kid.as_str()).text(&evidence.body).integer(evidence.at);
    let sum = sum.text(&evidence.door).maybe_integer(evidence.accepted.map(i64::from)).text(&detail);
    script
        .add(
            "INSERT INTO evidence (webhook, kid, body, at, door, accepted, detail, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (webhook, kid, body) DO NOTHING",
        )
        .bind(webhook)?
        .bind(evidence.kid.as_str())?
        .bind(evidence.body.as_str())?
        .bind(evidence.at)?
        .bind(evidence.door.as_str())?
        .bind(evidence.accepted)?
        .bind(detail)?
        .bind(sum.done())?;
    Ok(())
}

fn write_probe(script: &mut Script, webhook: &str, probe: &Probe) -> Result<(), Fault> {
    let kid = probe.kid.as_ref().map(|kid| kid.as_str());
    let sum = Sum::of("probe").text(webhook).text(&probe.body).maybe_text(kid).text(&probe.replica).integer(probe.at);
    script
        .add("INSERT INTO probe (webhook, body, kid, replica, at, checksum) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(webhook)?
        .bind(probe.body.as_str())?
        .bind(kid)?
        .bind(probe.replica.as_str())?
        .bind(probe.at)?
        .bind(sum.done())?;
    Ok(())
}

fn write_memo(script: &mut Script, webhook: &str, name: &str, value: &serde_json::Value) -> Result<(), Fault> {
    if value.is_null() {
        script.add("DELETE FROM memo WHERE webhook = ? AND name = ?").bind(webhook)?.bind(name)?;
        return Ok(());
    }
    let text = json(value)?;
    let sum = Sum::of("memo").text(webhook).text(name).text(&text);
    script
        .add(
            "INSERT INTO memo (webhook, name, value, checksum) VALUES (?, ?, ?, ?) \
             ON CONFLICT (webhook, name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
        )
        .bind(webhook)?
        .bind(name)?
        .bind(text)?
        .bind(sum.done())?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| Fault::Refused(e.to_string()))
}

/// A plain enum as its name, without the quotes.
fn json_word(value: &impl serde::Serialize) -> Result<String, Fault> {
    json(value).map(|text| text.trim_matches('"').to_owned())
}
