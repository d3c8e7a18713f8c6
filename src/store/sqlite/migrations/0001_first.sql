-- The first schema. A later one is a new file beside this; this one never changes.
--
-- Times `at`, `created`, `..._at` are milliseconds since the Unix epoch, for people. Nothing is ever deleted but memos.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- `store`: names this database in anchors, which lie outside of it. `epoch`: +1 with every opening.
INSERT INTO meta (name, value) VALUES ('store', lower(hex(randomblob(16)))), ('epoch', '0');

-- One record per webhook. `checksum` covers every other column: SQLite does not notice a flipped bit in a value.
CREATE TABLE webhook (
    name        TEXT    NOT NULL PRIMARY KEY,
    seq         INTEGER NOT NULL,
    record      TEXT    NOT NULL,
    boot_id     TEXT    NOT NULL,
    boottime_ms INTEGER NOT NULL,
    checksum    BLOB    NOT NULL
) STRICT;

CREATE TABLE memo (
    webhook TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (webhook, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (
    id      INTEGER PRIMARY KEY,
    webhook TEXT    NOT NULL,
    kid     TEXT    NOT NULL,
    sealed  BLOB    NOT NULL,
    origin  TEXT    NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (webhook, kid)
) STRICT;

-- DialNexa never gives a secret back: one that is gone here may be the one it still signs with.
CREATE TRIGGER secret_is_never_deleted BEFORE DELETE ON secret
BEGIN
    SELECT RAISE(ABORT, 'a secret is never deleted');
END;

CREATE TABLE journal (
    id       INTEGER PRIMARY KEY,
    webhook  TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    rotation INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    note     TEXT    NOT NULL
) STRICT;
CREATE INDEX journal_by_rotation ON journal (webhook, rotation, id);
CREATE INDEX journal_by_webhook ON journal (webhook, id);

CREATE TABLE attempt (
    webhook   TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    rotation  INTEGER NOT NULL,
    kid       TEXT    NOT NULL,
    intent_at INTEGER NOT NULL,
    ended_at  INTEGER,
    outcome   TEXT,
    PRIMARY KEY (webhook, number)
) STRICT;

CREATE TABLE evidence (
    id       INTEGER PRIMARY KEY,
    webhook  TEXT    NOT NULL,
    kid      TEXT    NOT NULL,
    body     TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    door     TEXT    NOT NULL,
    accepted INTEGER,
    detail   TEXT    NOT NULL,
    UNIQUE (webhook, kid, body)
) STRICT;
CREATE INDEX evidence_by_webhook ON evidence (webhook, id);

CREATE TABLE probe (
    id      INTEGER PRIMARY KEY,
    webhook TEXT    NOT NULL,
    body    TEXT    NOT NULL,
    kid     TEXT,
    replica TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX probe_once ON probe (webhook, body, replica, ifnull(kid, ''));

-- Bytes 68 and 60 of the file: `check` reads them without opening the database. 'hktn'.
PRAGMA application_id = 1751872622;
PRAGMA user_version = 1;
