//! The schema's versions, and how a database gets from one to the next.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sqlx::{Connection, SqliteConnection};

use super::fault::Fault;

/// In the header of every database of ours: `hktn`.
const APPLICATION_ID: i64 = 0x686b_746e;

/// Each script leaves `user_version` at its own place in this list, counted from one.
const SCRIPTS: [&str; 3] = [
    include_str!("migrations/0001_first.sql"),
    include_str!("migrations/0002_event_log.sql"),
    include_str!("migrations/0003_checksums.sql"),
];

/// The newest schema that this program knows.
pub(super) const KNOWN: i64 = SCRIPTS.len() as i64;

/// Whether the file can be opened as a store, by its header alone. SQLite is not asked: opening would write to the file.
/// An empty file can: it becomes a store.
pub(super) fn examine(path: &Path) -> Result<(), Fault> {
    let mut header = [0u8; 100];
    let mut file = File::open(path).map_err(|e| Fault::Refused(e.to_string()))?;
    match file.read_exact(&mut header) {
        Ok(()) if header.starts_with(b"SQLite format 3\0") => accepts(field(&header, 68), field(&header, 60)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && file.metadata().is_ok_and(|meta| meta.len() == 0) => Ok(()),
        Ok(()) => Err(Fault::Damaged("it does not begin as an SQLite database does".to_owned())),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Fault::Damaged("it is cut off in its header".to_owned())),
        Err(e) => Err(Fault::Refused(e.to_string())),
    }
}

fn field(header: &[u8; 100], at: usize) -> i64 {
    i64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
}

fn accepts(application_id: i64, version: i64) -> Result<(), Fault> {
    match (application_id, version) {
        (0, 0) => Ok(()),
        (APPLICATION_ID, version) if version <= KNOWN => Ok(()),
        (APPLICATION_ID, found) => Err(Fault::TooNew(found)),
        _ => Err(of_another_program()),
    }
}

/// Asks SQLite, which also sees what is only in the log yet. `conn` need not be able to write.
pub(super) async fn version(conn: &mut SqliteConnection) -> Result<i64, Fault> {
    let application_id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *conn).await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *conn).await?;
    accepts(application_id, version)?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *conn).await?;
    if version == 0 && tables > 0 { Err(of_another_program()) } else { Ok(version) }
}

/// Brings the schema up to date, each script in one transaction.
pub(super) async fn bring_up_to_date(conn: &mut SqliteConnection) -> Result<(), Fault> {
    let version = version(conn).await?;
    for script in SCRIPTS.into_iter().skip(usize::try_from(version).unwrap_or(0)) {
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(script).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(())
}

fn of_another_program() -> Fault {
    Fault::Refused("it is the SQLite database of another program; name another file in store.url".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_no_store() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(examine(dir.path()), Err(Fault::Refused(_))));
    }
}
