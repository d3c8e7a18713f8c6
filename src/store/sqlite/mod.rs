//! The store in one SQLite file: WAL, synchronous=FULL, one writer, a few readers.
//!
//! What a failed write leaves behind. A commit appends frames to the WAL, syncs it, and only then tells the other connections
//! (in shared memory) that the WAL has grown. When the sync fails, the frames lie in the page cache, marked clean by the kernel
//! although the disk never got them: a later fsync succeeds without writing them. So
//! - the writer's connection is dropped after any answer of SQLite that was not expected, while a reader stays open: the shared
//!   index survives and does not know the failed frames, so nobody sees them;
//! - the next connection first empties the WAL into the database file ([`settle`]). That writes and syncs every page afresh, and
//!   truncates the failed frames away. Only then is anything committed again;
//! - opening does the same, because a process that died right after a failed sync leaves frames that read well and are not on the
//!   disk. Whatever is read from an open store is on the disk.

mod examine;
mod fault;
mod lock;
mod read;
mod reserve;
mod row;
mod schema;
mod script;
mod sum;
mod write;

use std::{
    io, mem,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Mutex;

use super::{
    Attempt, Batch, EventLog, Evidence, Finding, JournalLine, Probe, Store, StoreError, Stored, StoredSecret, UnixMillis,
    private_file,
};
use fault::Fault;
use lock::Lock;
use reserve::Reserve;

/// A [`Store`] in one file, for one process.
pub struct Sqlite {
    path: PathBuf,
    id: String,
    epoch: u64,
    readers: SqlitePool,
    writer: Mutex<Writer>,
    lock: std::sync::Mutex<Option<Lock>>,
    reserve: Reserve,
}

/// Who opens the store, for the one who finds it in use.
#[derive(Debug, Clone)]
pub struct Opening {
    /// `hookturn run`
    pub command: String,
    pub at: UnixMillis,
}

enum Writer {
    Ready(SqliteConnection),
    /// The connection was dropped; the next commit starts with a new one. Also so for the duration of a commit: one that is
    /// cancelled is as suspect as a failed one.
    Suspect,
    Closed,
}

/// How long to wait for another program that has the database locked: a backup, a person's shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Sqlite {
    /// Opens or makes the store at `path`, takes its lock, checks its integrity, brings its schema up to date, and begins a new
    /// epoch. The directory is made, if its parent exists.
    ///
    /// Held, TooNew, Damaged and Full are what they say; all else is Failed. None of them has changed anything that was stored.
    pub async fn open(path: &Path, opening: Opening) -> Result<Sqlite, StoreError> {
        let path = prepare(path)?;
        let lock = Lock::take(&path, &opening).await?;
        let reserve = Reserve::of(&path);
        let begun = match begin(&path).await.map_err(|fault| fault.at(&path, "open")) {
            Err(StoreError::Full { .. }) if reserve.give_up() => begin(&path).await.map_err(|fault| fault.at(&path, "open")),
            begun => begun,
        };
        let (writer, readers, id, epoch) = begun?;
        reserve.renew();
        let (writer, lock) = (Mutex::new(Writer::Ready(writer)), std::sync::Mutex::new(Some(lock)));
        Ok(Sqlite { path, id, epoch, readers, writer, lock, reserve })
    }

    /// Opens what is there only to read it: no lock, no new epoch, so that it neither stops another process nor waits for one.
    /// `None`: there is no store yet. A commit to it is refused.
    pub async fn look(path: &Path) -> Result<Option<Sqlite>, StoreError> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > 0 => {}
            _ => return Ok(None),
        }
        let path =
            path.canonicalize().map_err(|e| StoreError::Failed { place: place(path), action: "open", reason: e.to_string() })?;
        let (readers, id) = peek(&path).await.map_err(|fault| fault.at(&path, "open"))?;
        let (writer, lock) = (Mutex::new(Writer::Closed), std::sync::Mutex::new(None));
        let reserve = Reserve::of(&path);
        Ok(Some(Sqlite { path, id, epoch: 0, readers, writer, lock, reserve }))
    }

    /// What `check` should say about this path. Opens and changes nothing.
    pub fn examine(path: &Path) -> Vec<Finding> {
        examine::examine(path)
    }

    /// The writer's connection, a fresh one where the last was dropped.
    async fn connection(&self, writer: &mut Writer) -> Result<SqliteConnection, Fault> {
        match mem::replace(writer, Writer::Suspect) {
            Writer::Ready(conn) => Ok(conn),
            Writer::Suspect => {
                let mut conn = connect(&self.path).await?;
                settle(&mut conn).await?;
                Ok(conn)
            }
            Writer::Closed => {
                *writer = Writer::Closed;
                Err(Fault::Refused("the store is closed".to_owned()))
            }
        }
    }

    async fn try_commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let mut conn = self.connection(&mut writer).await.map_err(|fault| fault.at(&self.path, "reopen"))?;
        let outcome = write::commit(&mut conn, self.epoch, batch).await;
        match &outcome {
            Err(fault) if !fault.is_refusal() => drop(conn.close_hard().await),
            Ok(()) | Err(_) => *writer = Writer::Ready(conn),
        }
        outcome.map_err(|fault| fault.at(&self.path, "commit"))
    }

    fn read<T>(&self, outcome: Result<T, Fault>) -> Result<T, StoreError> {
        outcome.map_err(|fault| fault.at(&self.path, "read"))
    }
}

#[async_trait]
impl Store for Sqlite {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn place(&self) -> String {
        place(&self.path)
    }

    async fn webhooks(&self) -> Result<Vec<Stored>, StoreError> {
        self.read(read::webhooks(&self.readers).await)
    }

    async fn webhook(&self, name: &str) -> Result<Option<Stored>, StoreError> {
        self.read(read::webhook(&self.readers, name).await)
    }

    async fn secrets(&self, webhook: &str) -> Result<Vec<StoredSecret>, StoreError> {
        self.read(read::secrets(&self.readers, webhook).await)
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match self.try_commit(&batch).await {
            Err(StoreError::Full { .. }) if self.reserve.give_up() => self.try_commit(&batch).await,
            outcome => outcome,
        }
    }

    fn short_of_space(&self) -> bool {
        self.reserve.is_spent()
    }

    async fn journal(&self, webhook: &str, rotation: Option<u64>, limit: u32) -> Result<Vec<JournalLine>, StoreError> {
        self.read(read::journal(&self.readers, webhook, rotation, limit).await)
    }

    async fn attempts(&self, webhook: &str, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        self.read(read::attempts(&self.readers, webhook, limit).await)
    }

    async fn evidence(&self, webhook: &str, limit: u32) -> Result<Vec<Evidence>, StoreError> {
        self.read(read::evidence(&self.readers, webhook, limit).await)
    }

    async fn event_log(&self, webhook: &str) -> Result<Option<EventLog>, StoreError> {
        self.read(read::event_log(&self.readers, webhook).await)
    }

    async fn probes(&self, webhook: &str) -> Result<Vec<Probe>, StoreError> {
        self.read(read::probes(&self.readers, webhook).await)
    }

    /// The writer goes last: the last connection moves the WAL into the database file, and readers cannot.
    async fn close(&self) {
        let mut writer = self.writer.lock().await;
        let conn = self.connection(&mut writer).await;
        *writer = Writer::Closed;
        self.readers.close().await;
        if let Ok(conn) = conn
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, "the store did not close cleanly; nothing is lost");
        }
        drop(self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }
}

fn place(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// Makes the directory where needed, and gives the one absolute name that the file has: its lock lies beside it, and a name
/// that begins with `file:` would be an URI to SQLite.
fn prepare(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |action, e: io::Error| StoreError::Failed { place: place(path), action, reason: fault::reason(&e) };
    let dir = private_file::directory(path);
    if !dir.exists() {
        private_file::make_directory(dir).map_err(|e| failed("make its directory", e))?;
    }
    let dir = dir.canonicalize().and_then(directory).map_err(|e| failed("open its directory", e))?;
    let name = path.file_name().ok_or_else(|| failed("open", io::ErrorKind::IsADirectory.into()))?;
    let path = dir.join(name);
    private_file::open(&path).map_err(|e| failed("open", e))?;
    path.canonicalize().map_err(|e| failed("open", e))
}

fn directory(path: PathBuf) -> io::Result<PathBuf> {
    if path.is_dir() { Ok(path) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

async fn begin(path: &Path) -> Result<(SqliteConnection, SqlitePool, String, u64), Fault> {
    // What is not ours is found out before anything is written: turning on the write-ahead log would be.
    schema::examine(path)?;
    let mut look = options(path).read_only(true).connect().await?;
    schema::version(&mut look).await?;
    look.close().await?;
    let mut conn = connect(path).await?;
    let journal_mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut conn).await?;
    if journal_mode != "wal" {
        return Err(Fault::Refused(format!(
            "no write-ahead log on this file system (journal mode {journal_mode}): use a local disk"
        )));
    }
    // Not quick_check: an index that has lost an entry hides a row.
    let integrity: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut conn).await?;
    if integrity != "ok" {
        return Err(Fault::Damaged(format!("SQLite's integrity_check says: {integrity}")));
    }
    schema::bring_up_to_date(&mut conn).await?;
    settle(&mut conn).await?;
    let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'store'").fetch_one(&mut conn).await?;
    let epoch: i64 =
        sqlx::query_scalar("UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING CAST(value AS INTEGER)")
            .fetch_one(&mut conn)
            .await?;
    Ok((conn, readers(path).await?, id, row::unsigned(epoch)?))
}

async fn peek(path: &Path) -> Result<(SqlitePool, String), Fault> {
    schema::examine(path)?;
    let readers = readers(path).await?;
    let version = schema::version(&mut *readers.acquire().await?).await?;
    if version < schema::KNOWN {
        // Only a process that holds the lock may change it.
        let known = schema::KNOWN;
        return Err(Fault::Refused(format!(
            "an earlier hookturn wrote it (schema {version}, this one reads {known}): start the daemon once, it brings it up to date"
        )));
    }
    let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'store'").fetch_one(&readers).await?;
    Ok((readers, id))
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // 4 MiB: a checkpoint, with its two fsyncs more, about once in a hundred commits.
        .pragma("wal_autocheckpoint", "1000")
        .pragma("journal_size_limit", "16777216")
        // Each shape of a script is a dozen statements.
        .statement_cache_capacity(32)
        .connect()
        .await
}

/// One reader stays open always: it keeps the shared index alive while the writer is replaced. It takes part in the index only
/// from its first query on.
async fn readers(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(4)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|conn, _| {
            Box::pin(async move { sqlx::query("SELECT name FROM meta LIMIT 1").execute(conn).await.map(drop) })
        })
        .connect_with(options(path).read_only(true))
        .await
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cell_size_check", "ON")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// Moves everything that is committed into the database file, synced, and empties the WAL; see the top of this file.
async fn settle(conn: &mut SqliteConnection) -> Result<(), Fault> {
    let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(conn).await?;
    match busy {
        0 => Ok(()),
        _ => Err(Fault::Refused("another program is reading the database (a sqlite3 shell, a backup): end it".to_owned())),
    }
}
