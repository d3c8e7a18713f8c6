//! Every question that the store answers. Readers see the last commit and never wait for the writer.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::{
    fault::Fault,
    row::{Columns, integer, unsigned},
    sum::check,
};
use crate::{
    secret::{Kid, Sealed},
    store::{Attempt, EventLog, Evidence, JournalLine, Logged, Probe, Stored, StoredSecret},
};

/// Both questions in one transaction: a record and its memos are of one commit.
pub(super) async fn webhooks(pool: &SqlitePool) -> Result<Vec<Stored>, Fault> {
    let mut tx = pool.begin().await?;
    let rows = sqlx::query("SELECT * FROM webhook ORDER BY name").fetch_all(&mut *tx).await?;
    let memos = sqlx::query("SELECT * FROM memo ORDER BY webhook, name").fetch_all(&mut *tx).await?;
    let mut by_webhook: BTreeMap<String, Vec<(String, serde_json::Value)>> = BTreeMap::new();
    for row in memos {
        by_webhook.entry(row.try_get("webhook")?).or_default().push(memo(&row)?);
    }
    rows.iter()
        .map(|row| {
            let columns = Columns::from_row(row)?;
            let memos = by_webhook.remove(&columns.name).unwrap_or_default();
            stored(columns, memos)
        })
        .collect()
}

pub(super) async fn webhook(pool: &SqlitePool, name: &str) -> Result<Option<Stored>, Fault> {
    let mut tx = pool.begin().await?;
    let Some(row) = sqlx::query("SELECT * FROM webhook WHERE name = ?").bind(name).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let memos = sqlx::query("SELECT * FROM memo WHERE webhook = ? ORDER BY name").bind(name).fetch_all(&mut *tx).await?;
    let memos = memos.iter().map(memo).collect::<Result<_, Fault>>()?;
    stored(Columns::from_row(&row)?, memos).map(Some)
}

fn stored(columns: Columns, memos: Vec<(String, serde_json::Value)>) -> Result<Stored, Fault> {
    let webhook = columns.name.clone();
    let (record, stamp) = columns.decode()?;
    Ok(Stored { webhook, record, stamp, memos })
}

fn memo(row: &SqliteRow) -> Result<(String, serde_json::Value), Fault> {
    check(row, "memo", &["webhook", "name", "value"])?;
    Ok((row.try_get("name")?, json(row, "value")?))
}

pub(super) async fn secrets(pool: &SqlitePool, webhook: &str) -> Result<Vec<StoredSecret>, Fault> {
    let rows = sqlx::query("SELECT * FROM secret WHERE webhook = ? ORDER BY id").bind(webhook).fetch_all(pool).await?;
    rows.iter().map(secret).collect()
}

fn secret(row: &SqliteRow) -> Result<StoredSecret, Fault> {
    let origin: String = row.try_get("origin")?;
    Ok(StoredSecret {
        kid: kid(row.try_get("kid")?)?,
        sealed: Sealed(row.try_get("sealed")?),
        origin: serde_json::from_value(origin.into()).map_err(|_| Fault::Damaged("a secret of unknown origin".to_owned()))?,
        created: row.try_get("created")?,
    })
}

pub(super) async fn journal(
    pool: &SqlitePool,
    webhook: &str,
    rotation: Option<u64>,
    limit: u32,
) -> Result<Vec<JournalLine>, Fault> {
    let rows = match rotation {
        None => sqlx::query("SELECT * FROM journal WHERE webhook = ? ORDER BY id DESC LIMIT ?").bind(webhook),
        Some(rotation) => sqlx::query("SELECT * FROM journal WHERE webhook = ? AND rotation = ? ORDER BY id DESC LIMIT ?")
            .bind(webhook)
            .bind(integer(rotation)?),
    };
    oldest_first(rows.bind(limit).fetch_all(pool).await?, line)
}

fn line(row: &SqliteRow) -> Result<JournalLine, Fault> {
    check(row, "journal", &["webhook", "at", "rotation", "seq", "actor", "note"])?;
    Ok(JournalLine {
        at: row.try_get("at")?,
        rotation: unsigned(row.try_get("rotation")?)?,
        seq: unsigned(row.try_get("seq")?)?,
        actor: row.try_get("actor")?,
        note: json(row, "note")?,
    })
}

pub(super) async fn attempts(pool: &SqlitePool, webhook: &str, limit: u32) -> Result<Vec<Attempt>, Fault> {
    let rows = sqlx::query("SELECT * FROM attempt WHERE webhook = ? ORDER BY number DESC LIMIT ?").bind(webhook).bind(limit);
    oldest_first(rows.fetch_all(pool).await?, attempt)
}

pub(super) fn attempt(row: &SqliteRow) -> Result<Attempt, Fault> {
    check(row, "attempt", &["webhook", "number", "rotation", "kid", "intent_at", "ended_at", "outcome"])?;
    Ok(Attempt {
        number: unsigned(row.try_get("number")?)?,
        rotation: unsigned(row.try_get("rotation")?)?,
        kid: kid(row.try_get("kid")?)?,
        intent_at: row.try_get("intent_at")?,
        ended_at: row.try_get("ended_at")?,
        outcome: row.try_get("outcome")?,
    })
}

pub(super) async fn evidence(pool: &SqlitePool, webhook: &str, limit: u32) -> Result<Vec<Evidence>, Fault> {
    let rows = sqlx::query("SELECT * FROM evidence WHERE webhook = ? ORDER BY id DESC LIMIT ?").bind(webhook).bind(limit);
    oldest_first(rows.fetch_all(pool).await?, one_evidence)
}

fn one_evidence(row: &SqliteRow) -> Result<Evidence, Fault> {
    check(row, "evidence", &["webhook", "kid", "body", "at", "door", "accepted", "detail"])?;
    Ok(Evidence {
        kid: kid(row.try_get("kid")?)?,
        body: row.try_get("body")?,
        at: row.try_get("at")?,
        door: row.try_get("door")?,
        accepted: row.try_get("accepted")?,
        detail: json(row, "detail")?,
    })
}

/// In one transaction: the record is the one that the newest entry leads to.
pub(super) async fn event_log(pool: &SqlitePool, webhook: &str) -> Result<Option<EventLog>, Fault> {
    let mut tx = pool.begin().await?;
    let Some(row) = sqlx::query("SELECT * FROM webhook WHERE name = ?").bind(webhook).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let rows = sqlx::query("SELECT * FROM event WHERE webhook = ? ORDER BY number").bind(webhook).fetch_all(&mut *tx).await?;
    let (record, _) = Columns::from_row(&row)?.decode()?;
    let entries = rows.iter().map(logged).collect::<Result<_, Fault>>()?;
    Ok(Some(EventLog { record, entries }))
}

fn logged(row: &SqliteRow) -> Result<Logged, Fault> {
    check(row, "event", &["webhook", "at", "start", "entry"])?;
    Ok(Logged { number: unsigned(row.try_get("number")?)?, at: row.try_get("at")?, entry: json(row, "entry")? })
}

pub(super) async fn probes(pool: &SqlitePool, webhook: &str) -> Result<Vec<Probe>, Fault> {
    let rows = sqlx::query("SELECT * FROM probe WHERE webhook = ? ORDER BY id").bind(webhook).fetch_all(pool).await?;
    rows.iter().map(probe).collect()
}

fn probe(row: &SqliteRow) -> Result<Probe, Fault> {
    check(row, "probe", &["webhook", "body", "kid", "replica", "at"])?;
    Ok(Probe {
        body: row.try_get("body")?,
        kid: row.try_get::<Option<&str>, _>("kid")?.map(kid).transpose()?,
        replica: row.try_get("replica")?,
        at: row.try_get("at")?,
    })
}

/// The newest rows were asked for, newest first.
fn oldest_first<T>(rows: Vec<SqliteRow>, decode: fn(&SqliteRow) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    rows.iter().rev().map(decode).collect()
}

fn kid(text: &str) -> Result<Kid, Fault> {
    Kid::parse(text).map_err(|e| Fault::Damaged(e.to_string()))
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T, Fault> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|e| Fault::Damaged(format!("a {column} cannot be read ({e})")))
}
