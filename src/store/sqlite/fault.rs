//! What SQLite's answers mean to hookturn.

use std::path::Path;

use crate::store::StoreError;

/// Ends every message about damage. Copying a backup back is safe at any time: an older store is noticed and rolled forward.
pub(super) const WAY_OUT: &str = "keep the file, it holds the sealed secrets; put the newest backup in its place, without the \
                                  -wal and -shm files beside it, and start again: hookturn notices an older store and rolls forward";

/// Why something was not done, before the place is known.
pub(super) enum Fault {
    Sql(sqlx::Error),
    /// The stored data contradicts itself.
    Damaged(String),
    TooNew(i64),
    Conflict {
        webhook: String,
        offered: u64,
        stored: u64,
    },
    Fenced {
        found: u64,
        ours: u64,
    },
    /// It says something else than what is stored.
    Contradiction(String),
    /// We refuse, for a reason that a person can read.
    Refused(String),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl Fault {
    /// Whether the connection is what it was before: the refusal was ours, not SQLite's.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Fault::Conflict { .. } | Fault::Fenced { .. } | Fault::Contradiction(_) | Fault::Refused(_))
    }

    /// `path` is asked for its free space where SQLite's answer does not tell a full disk from a broken one.
    pub(super) fn at(self, path: &Path, action: &'static str) -> StoreError {
        let place = super::place(path);
        match self {
            Fault::Sql(error) => sql(error, path, action),
            Fault::Damaged(reason) => StoreError::Damaged { place, reason: format!("{reason}; {WAY_OUT}") },
            Fault::TooNew(found) => StoreError::TooNew { place, found, known: super::schema::KNOWN },
            Fault::Conflict { webhook, offered, stored } => StoreError::Conflict { place, webhook, offered, stored },
            Fault::Fenced { found, ours } => StoreError::Fenced { place, found, ours },
            Fault::Contradiction(reason) => StoreError::Contradiction { place, reason },
            Fault::Refused(reason) => StoreError::Failed { place, action, reason },
        }
    }
}

const BUSY: i32 = 5;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

fn sql(error: sqlx::Error, path: &Path, action: &'static str) -> StoreError {
    let failed = |reason: String| StoreError::Failed { place: super::place(path), action, reason };
    let damaged = |reason: String| Fault::Damaged(reason).at(path, action);
    if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) = error {
        return damaged(format!("a value is not what hookturn writes ({error})"));
    }
    let Some(code) = primary_code(&error) else { return failed(error.to_string()) };
    match code {
        FULL => StoreError::Full { place: super::place(path) },
        IOERR if out_of_space(path) => StoreError::Full { place: super::place(path) },
        CORRUPT | NOTADB => damaged(format!("SQLite says: {error}")),
        READONLY => {
            failed("the file or its directory is read-only for this user; give it to the user that runs hookturn".to_owned())
        }
        IOERR => failed(format!("the disk failed ({error}): see the kernel's log (dmesg)")),
        BUSY => failed("another program has the database locked (a sqlite3 shell, a backup): end it".to_owned()),
        CANTOPEN => failed(format!("{error}: the directory must belong to the user that runs hookturn")),
        _ => failed(error.to_string()),
    }
}

/// The operating system's reason, with the way out where it has one that is not plain.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}: the kernel does that after a disk error (dmesg); mount it read-write again, and start again")
        }
        _ => error.to_string(),
    }
}

/// The primary result code; the byte above it is the extended one.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// Growing the shared-memory file, and a delayed allocation at fsync, fail on a full disk as a plain I/O error.
fn out_of_space(path: &Path) -> bool {
    let dir = path.parent().unwrap_or(path);
    rustix::fs::statvfs(dir).is_ok_and(|fs| fs.f_bavail == 0)
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    async fn said(statement: &'static str) -> String {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.expect("a database");
        sqlx::raw_sql("PRAGMA query_only = ON").execute(&mut conn).await.expect("read-only");
        let error = sqlx::query_scalar::<_, i64>(statement).fetch_one(&mut conn).await.expect_err("refused");
        sql(error, Path::new("/nowhere/hookturn.db"), "commit").to_string()
    }

    #[tokio::test]
    async fn an_answer_of_sqlite_becomes_a_sentence_with_a_way_out() {
        assert!(said("CREATE TABLE t (x)").await.contains("give it to the user that runs hookturn"));
        assert!(said("SELECT 'x'").await.contains("a value is not what hookturn writes"));
        assert!(said("SELECT no_such_thing()").await.contains("no such function"));
        let missing = SqliteConnection::connect("sqlite:///nowhere/at-all.db").await.expect_err("no directory");
        assert!(sql(missing, Path::new("/nowhere/at-all.db"), "open").to_string().contains("the directory must belong"));
    }

    #[test]
    fn a_file_system_that_went_read_only_is_told_with_what_to_do() {
        let error = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        assert!(reason(&error).contains("mount it read-write again"));
    }
}
