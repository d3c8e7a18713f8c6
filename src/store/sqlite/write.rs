//! One batch, one transaction, one fsync.

use sqlx::{Connection, Sqlite, SqliteConnection, Transaction};

use super::{
    fault::Fault,
    read,
    row::{Columns, integer, unsigned},
    sum::Sum,
};
use crate::{
    boundary::{self, Boundary},
    rotation::{Entry, KidSet, Record},
    store::{self, Attempt, Batch, Change, Evidence, LOG_KEPT, NewLine, Probe, Stamp, StoredSecret, UnixMillis},
};

/// The write lock is taken at once: a reader that turns writer is refused as busy, whatever the time-out.
pub(super) async fn commit(conn: &mut SqliteConnection, epoch: u64, batch: &Batch) -> Result<(), Fault> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    match write(&mut tx, epoch, batch).await {
        Ok(()) => {
            boundary::reach(Boundary::InCommit);
            Ok(tx.commit().await?)
        }
        Err(fault) => {
            tx.rollback().await?;
            Err(fault)
        }
    }
}

type Tx<'c> = Transaction<'c, Sqlite>;

async fn write(tx: &mut Tx<'_>, epoch: u64, batch: &Batch) -> Result<(), Fault> {
    still_ours(tx, epoch).await?;
    for change in &batch.changes {
        write_change(tx, change, &batch.stamp, batch.at).await?;
    }
    Ok(())
}

async fn still_ours(tx: &mut Tx<'_>, ours: u64) -> Result<(), Fault> {
    let found: i64 =
        sqlx::query_scalar("SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'epoch'").fetch_one(&mut **tx).await?;
    let found = unsigned(found)?;
    if found == ours { Ok(()) } else { Err(Fault::Fenced { found, ours }) }
}

async fn write_change(tx: &mut Tx<'_>, change: &Change, stamp: &Stamp, at: UnixMillis) -> Result<(), Fault> {
    let webhook = change.webhook.as_str();
    if let Some(record) = &change.record {
        write_record(tx, webhook, record, stamp).await?;
    }
    for secret in &change.secrets {
        write_secret(tx, webhook, secret).await?;
    }
    for line in &change.journal {
        write_line(tx, webhook, line, at).await?;
    }
    for entry in &change.events {
        write_event(tx, webhook, entry, at).await?;
    }
    for attempt in &change.attempts {
        write_attempt(tx, webhook, attempt).await?;
    }
    for evidence in &change.evidence {
        write_evidence(tx, webhook, evidence).await?;
    }
    for probe in &change.probes {
        write_probe(tx, webhook, probe).await?;
    }
    if let Some(kept) = &change.probes_kept {
        forget_probes(tx, webhook, kept).await?;
    }
    for (name, value) in &change.memos {
        write_memo(tx, webhook, name, value).await?;
    }
    Ok(())
}

async fn forget_probes(tx: &mut Tx<'_>, webhook: &str, kept: &KidSet) -> Result<(), Fault> {
    let old = "DELETE FROM probe WHERE webhook = ? AND ifnull(kid, '') NOT IN (SELECT value FROM json_each(?))";
    sqlx::query(old).bind(webhook).bind(json(kept)?).execute(&mut **tx).await?;
    Ok(())
}

async fn write_record(tx: &mut Tx<'_>, webhook: &str, record: &Record, stamp: &Stamp) -> Result<(), Fault> {
    let columns = Columns::of(webhook, record, stamp)?;
    let written = sqlx::query(
        "INSERT INTO webhook (name, seq, record, boot_id, boottime_ms, checksum) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, record = excluded.record, boot_id = excluded.boot_id, \
         boottime_ms = excluded.boottime_ms, checksum = excluded.checksum WHERE excluded.seq > webhook.seq",
    )
    .bind(columns.name)
    .bind(columns.seq)
    .bind(columns.record)
    .bind(columns.boot_id)
    .bind(columns.boottime_ms)
    .bind(columns.checksum)
    .execute(&mut **tx)
    .await?;
    if written.rows_affected() == 1 {
        return Ok(());
    }
    let stored: i64 = sqlx::query_scalar("SELECT seq FROM webhook WHERE name = ?").bind(webhook).fetch_one(&mut **tx).await?;
    Err(Fault::Conflict { webhook: webhook.to_owned(), offered: record.seq, stored: unsigned(stored)? })
}

async fn write_secret(tx: &mut Tx<'_>, webhook: &str, secret: &StoredSecret) -> Result<(), Fault> {
    let written = sqlx::query(
        "INSERT INTO secret (webhook, kid, sealed, origin, created) VALUES (?, ?, ?, ?, ?) ON CONFLICT (webhook, kid) DO NOTHING",
    )
    .bind(webhook)
    .bind(secret.kid.as_str())
    .bind(secret.sealed.0.as_slice())
    .bind(json_word(&secret.origin)?)
    .bind(secret.created)
    .execute(&mut **tx)
    .await?;
    if written.rows_affected() == 1 {
        return Ok(());
    }
    let stored: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM secret WHERE webhook = ? AND kid = ?")
        .bind(webhook)
        .bind(secret.kid.as_str())
        .fetch_one(&mut **tx)
        .await?;
    if stored == secret.sealed.0 { Ok(()) } else { Err(Fault::Refused(store::other_secret(webhook, secret.kid))) }
}

async fn write_line(tx: &mut Tx<'_>, webhook: &str, line: &NewLine, at: UnixMillis) -> Result<(), Fault> {
    let (rotation, seq, note) = (integer(line.rotation)?, integer(line.seq)?, json(&line.note)?);
    let sum = Sum::of("journal").text(webhook).integer(at).integer(rotation).integer(seq).text(&line.actor).text(&note);
    sqlx::query("INSERT INTO journal (webhook, at, rotation, seq, actor, note, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(webhook)
        .bind(at)
        .bind(rotation)
        .bind(seq)
        .bind(line.actor.as_str())
        .bind(note)
        .bind(sum.done())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Where a start is written, what is no longer kept goes: everything before another start.
async fn write_event(tx: &mut Tx<'_>, webhook: &str, entry: &Entry, at: UnixMillis) -> Result<(), Fault> {
    let start = matches!(entry, Entry::Start { .. });
    let text = json(entry)?;
    let sum = Sum::of("event").text(webhook).integer(at).integer(i64::from(start)).text(&text);
    let number: i64 = sqlx::query_scalar(
        "INSERT INTO event (webhook, number, at, start, entry, checksum) \
         SELECT ?1, ifnull(max(number), 0) + 1, ?2, ?3, ?4, ?5 FROM event WHERE webhook = ?1 RETURNING number",
    )
    .bind(webhook)
    .bind(at)
    .bind(start)
    .bind(text)
    .bind(sum.done())
    .fetch_one(&mut **tx)
    .await?;
    if start {
        sqlx::query(
            "DELETE FROM event WHERE webhook = ?1 AND number < \
             (SELECT max(number) FROM event WHERE webhook = ?1 AND start AND number <= ?2)",
        )
        .bind(webhook)
        .bind(number - integer(LOG_KEPT)?)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// A number keeps its secret for ever: which secrets may still be applied is read from it. What is known of its end is kept.
async fn write_attempt(tx: &mut Tx<'_>, webhook: &str, attempt: &Attempt) -> Result<(), Fault> {
    let stored = sqlx::query("SELECT * FROM attempt WHERE webhook = ? AND number = ?")
        .bind(webhook)
        .bind(integer(attempt.number)?)
        .fetch_optional(&mut **tx)
        .await?;
    let stored = stored.as_ref().map(read::attempt).transpose()?;
    if stored.as_ref().is_some_and(|stored| stored.kid != attempt.kid) {
        return Err(Fault::Refused(store::other_attempt(webhook, attempt.number)));
    }
    let first = stored.as_ref().unwrap_or(attempt);
    let (number, rotation, kid) = (integer(first.number)?, integer(first.rotation)?, first.kid);
    let ended_at = attempt.ended_at.or(first.ended_at);
    let outcome = attempt.outcome.as_deref().or(first.outcome.as_deref());
    let sum = Sum::of("attempt").text(webhook).integer(number).integer(rotation).text(kid.as_str());
    let sum = sum.integer(first.intent_at).maybe_integer(ended_at).maybe_text(outcome);
    sqlx::query(
        "INSERT INTO attempt (webhook, number, rotation, kid, intent_at, ended_at, outcome, checksum) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (webhook, number) DO UPDATE SET ended_at = excluded.ended_at, \
         outcome = excluded.outcome, checksum = excluded.checksum",
    )
    .bind(webhook)
    .bind(number)
    .bind(rotation)
    .bind(kid.as_str())
    .bind(first.intent_at)
    .bind(ended_at)
    .bind(outcome)
    .bind(sum.done())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_evidence(tx: &mut Tx<'_>, webhook: &str, evidence: &Evidence) -> Result<(), Fault> {
    let detail = json(&evidence.detail)?;
    let sum = Sum::of("evidence").text(webhook).text(evidence.kid.as_str()).text(&evidence.body).integer(evidence.at);
    let sum = sum.text(&evidence.door).maybe_integer(evidence.accepted.map(i64::from)).text(&detail);
    sqlx::query(
        "INSERT INTO evidence (webhook, kid, body, at, door, accepted, detail, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (webhook, kid, body) DO NOTHING",
    )
    .bind(webhook)
    .bind(evidence.kid.as_str())
    .bind(evidence.body.as_str())
    .bind(evidence.at)
    .bind(evidence.door.as_str())
    .bind(evidence.accepted)
    .bind(detail)
    .bind(sum.done())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_probe(tx: &mut Tx<'_>, webhook: &str, probe: &Probe) -> Result<(), Fault> {
    let kid = probe.kid.as_ref().map(|kid| kid.as_str());
    let sum = Sum::of("probe").text(webhook).text(&probe.body).maybe_text(kid).text(&probe.replica).integer(probe.at);
    sqlx::query("INSERT INTO probe (webhook, body, kid, replica, at, checksum) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(webhook)
        .bind(probe.body.as_str())
        .bind(kid)
        .bind(probe.replica.as_str())
        .bind(probe.at)
        .bind(sum.done())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn write_memo(tx: &mut Tx<'_>, webhook: &str, name: &str, value: &serde_json::Value) -> Result<(), Fault> {
    if value.is_null() {
        sqlx::query("DELETE FROM memo WHERE webhook = ? AND name = ?").bind(webhook).bind(name).execute(&mut **tx).await?;
        return Ok(());
    }
    let text = json(value)?;
    let sum = Sum::of("memo").text(webhook).text(name).text(&text);
    sqlx::query(
        "INSERT INTO memo (webhook, name, value, checksum) VALUES (?, ?, ?, ?) \
         ON CONFLICT (webhook, name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
    )
    .bind(webhook)
    .bind(name)
    .bind(text)
    .bind(sum.done())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| Fault::Refused(e.to_string()))
}

/// A plain enum as its name, without the quotes.
fn json_word(value: &impl serde::Serialize) -> Result<String, Fault> {
    json(value).map(|text| text.trim_matches('"').to_owned())
}
