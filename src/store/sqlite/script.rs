//! Several statements in one hop to SQLite's thread.
//!
//! The driver for SQLite runs all statements of a query, with their values. No other driver does, and sqlx would rather it did
//! not either: should that end, every test of the store fails, and each statement has to be a hop of its own again.

use futures_util::TryStreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, Either, Encode, Executor, Row, Sqlite, SqliteConnection, Type,
    sqlite::{SqliteArguments, SqliteQueryResult, SqliteRow},
};

use super::fault::Fault;

/// Statements and their values, in order. Its text is made of literals only; equal shapes are prepared once.
#[derive(Default)]
pub(super) struct Script {
    sql: String,
    arguments: SqliteArguments,
    statements: usize,
}

/// A statement of a script came to its end.
pub(super) struct Ended {
    /// Its place in the script, from 0.
    pub statement: usize,
    /// Rows that it inserted, updated or deleted.
    pub changed: u64,
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

    /// Runs it: what each statement came to. The first one that fails ends it.
    pub async fn run(self, conn: &mut SqliteConnection) -> Result<Vec<Ended>, Fault> {
        let ended = self.stream(conn).await?.into_iter().filter_map(Either::left).enumerate();
        Ok(ended.map(|(statement, result)| Ended { statement, changed: result.rows_affected() }).collect())
    }

    /// Runs it: the one number that it selects.
    pub async fn value(self, conn: &mut SqliteConnection) -> Result<i64, Fault> {
        let row = self.stream(conn).await?.into_iter().find_map(Either::right).ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.try_get(0)?)
    }

    async fn stream(self, conn: &mut SqliteConnection) -> Result<Vec<Either<SqliteQueryResult, SqliteRow>>, Fault> {
        if self.statements == 0 {
            return Ok(Vec::new());
        }
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        Ok(conn.fetch_many(query).try_collect().await?)
    }
}
