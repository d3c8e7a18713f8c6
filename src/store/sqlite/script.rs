//! Several statements in one hop to SQLite's thread.
//!
//! The driver for SQLite runs all statements of a query, with their values. No other driver does, and sqlx would rather it did
//! not either: should that end, every test of the store fails, and each statement has to be a hop of its own again.

use futures_util::TryStreamExt;
use sqlx::{Arguments, AssertSqlSafe, Either, Encode, Executor, Row, Sqlite, SqliteConnection, Type, sqlite::SqliteArguments};

use super::fault::Fault;

/// Statements and their values, in order. Its text is made of literals only; equal shapes are prepared once.
#[derive(Default)]
pub(super) struct Script {
    sql: String,
    arguments: SqliteArguments,
    statements: usize,
}

/// What a script came to.
pub(super) struct Outcome {
    /// The rows that each statement inserted, updated or deleted.
    pub changed: Vec<u64>,
    /// What it selected first.
    pub number: Option<i64>,
}

impl Script {
    /// Adds a statement. Its parameters are plain `?`, and are bound next, in order.
    pub fn add(&mut self, statement: &'static str) -> &mut Script {
        self.sql.push_str(statement);
        self.sql.push_str(";\n");
        self.statements += 1;
        self
    }

    /// The next parameter.
    pub fn bind<'q>(&mut self, value: impl Encode<'q, Sqlite> + Type<Sqlite>) -> Result<&mut Script, Fault> {
        self.arguments.add(value).map_err(sqlx::Error::Encode)?;
        Ok(self)
    }

    /// How many statements there are.
    pub fn len(&self) -> usize {
        self.statements
    }

    /// Runs it. The first statement that fails ends it.
    pub async fn run(self, conn: &mut SqliteConnection) -> Result<Outcome, Fault> {
        let mut outcome = Outcome { changed: Vec::with_capacity(self.statements), number: None };
        if self.statements == 0 {
            return Ok(outcome);
        }
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        let mut steps = conn.fetch_many(query);
        while let Some(step) = steps.try_next().await? {
            match step {
                Either::Left(ended) => outcome.changed.push(ended.rows_affected()),
                Either::Right(row) if outcome.number.is_none() => outcome.number = Some(row.try_get(0)?),
                Either::Right(_) => {}
            }
        }
        Ok(outcome)
    }
}
