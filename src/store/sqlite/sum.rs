//! A checksum in every row: SQLite's own checks do not see a flipped bit in a value. Against bit rot; not against a person.

use sha2::{Digest, Sha256};
use sqlx::{Row, TypeInfo, ValueRef, sqlite::SqliteRow};

use super::fault::Fault;

/// SHA-256 over a table's name and the values of a row, in the order in which they are given.
pub(super) struct Sum(Sha256);

impl Sum {
    pub fn of(table: &str) -> Sum {
        Sum(Sha256::new()).text(table)
    }

    pub fn text(mut self, text: &str) -> Sum {
        self.0.update(b"t");
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    pub fn integer(mut self, integer: i64) -> Sum {
        self.0.update(b"i");
        self.0.update(integer.to_be_bytes());
        self
    }

    pub fn null(mut self) -> Sum {
        self.0.update(b"n");
        self
    }

    pub fn maybe_text(self, text: Option<&str>) -> Sum {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    pub fn maybe_integer(self, integer: Option<i64>) -> Sum {
        match integer {
            Some(integer) => self.integer(integer),
            None => self.null(),
        }
    }

    pub fn done(self) -> Vec<u8> {
        self.0.finalize().to_vec()
    }

    fn column(self, row: &SqliteRow, column: &str) -> Result<Sum, Fault> {
        let value = row.try_get_raw(column)?;
        if value.is_null() {
            return Ok(self.null());
        }
        let kind = value.type_info().name().to_owned();
        match kind.as_str() {
            "INTEGER" => Ok(self.integer(row.try_get_unchecked(column)?)),
            "TEXT" => Ok(self.text(row.try_get_unchecked(column)?)),
            _ => Err(Fault::Damaged(format!("a {column} is of the type {kind}"))),
        }
    }
}

/// Whether the row is as it was written. One from before there were checksums counts as it is.
pub(super) fn check(row: &SqliteRow, table: &'static str, columns: &[&str]) -> Result<(), Fault> {
    let stored: Option<Vec<u8>> = row.try_get("checksum")?;
    let sum = columns.iter().try_fold(Sum::of(table), |sum, column| sum.column(row, column))?;
    match stored {
        Some(stored) if stored != sum.done() => {
            let webhook: &str = row.try_get_unchecked("webhook")?;
            Err(Fault::Damaged(format!("a row of the table {table} (webhook {webhook:?}) does not match its checksum")))
        }
        _ => Ok(()),
    }
}
