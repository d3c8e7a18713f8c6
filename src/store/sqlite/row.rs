//! A record as one row: JSON in a versioned wrapper, under a checksum.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{Row, sqlite::SqliteRow};

use super::fault::Fault;
use crate::{rotation::Record, store::Stamp};

/// The version of the record's JSON. It rises when [`Record`] changes in a way that `serde` defaults do not cover.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Wrapper<'a> {
    version: u32,
    record: &'a Record,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Wrapped {
    record: Record,
}

/// The columns of a row of `webhook`.
pub(super) struct Columns {
    pub name: String,
    pub seq: i64,
    pub record: String,
    pub boot_id: String,
    pub boottime_ms: i64,
    pub checksum: Vec<u8>,
}

impl Columns {
    pub(super) fn of(name: &str, record: &Record, stamp: &Stamp) -> Result<Columns, Fault> {
        let json = serde_json::to_string(&Wrapper { version: VERSION, record }).map_err(|e| Fault::Refused(e.to_string()))?;
        let mut columns = Columns {
            name: name.to_owned(),
            seq: integer(record.seq)?,
            record: json,
            boot_id: stamp.boot_id.clone(),
            boottime_ms: integer(stamp.boottime_ms)?,
            checksum: Vec::new(),
        };
        columns.checksum = columns.sum();
        Ok(columns)
    }

    pub(super) fn from_row(row: &SqliteRow) -> Result<Columns, sqlx::Error> {
        Ok(Columns {
            name: row.try_get("name")?,
            seq: row.try_get("seq")?,
            record: row.try_get("record")?,
            boot_id: row.try_get("boot_id")?,
            boottime_ms: row.try_get("boottime_ms")?,
            checksum: row.try_get("checksum")?,
        })
    }

    /// The record and when it was committed, or what is wrong with the row.
    pub(super) fn decode(self) -> Result<(Record, Stamp), Fault> {
        let damaged = |what: &str| Fault::Damaged(format!("the record of webhook {} {what}", self.name));
        if self.checksum != self.sum() {
            return Err(damaged("does not match its checksum"));
        }
        let Version { version } = serde_json::from_str(&self.record).map_err(|_| damaged("has no version"))?;
        if version > VERSION {
            return Err(Fault::TooNew(i64::from(version)));
        }
        let Wrapped { record } = serde_json::from_str(&self.record).map_err(|e| damaged(&format!("cannot be read ({e})")))?;
        if i64::try_from(record.seq) != Ok(self.seq) {
            return Err(damaged("contradicts its seq"));
        }
        let boottime_ms = u64::try_from(self.boottime_ms).map_err(|_| damaged("has a boot time below zero"))?;
        Ok((record, Stamp { boot_id: self.boot_id, boottime_ms }))
    }

    /// SHA-256 over every other column, texts with their length in front. Against bit rot; not against a person.
    fn sum(&self) -> Vec<u8> {
        let mut sha = Sha256::new();
        for text in [&self.name, &self.record, &self.boot_id] {
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text.as_bytes());
        }
        sha.update(self.seq.to_be_bytes());
        sha.update(self.boottime_ms.to_be_bytes());
        sha.finalize().to_vec()
    }
}

/// SQLite's integers are signed.
pub(super) fn integer(value: u64) -> Result<i64, Fault> {
    i64::try_from(value).map_err(|_| Fault::Refused(format!("{value} is beyond SQLite's integers")))
}

pub(super) fn unsigned(value: i64) -> Result<u64, Fault> {
    u64::try_from(value).map_err(|_| Fault::Damaged(format!("{value} where no number is below zero")))
}
