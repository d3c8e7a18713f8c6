-- The event log of each webhook: what the core was given and what came of it. The only table besides `memo` from which
-- anything is deleted: the oldest entries, up to one that the rest can start from.
CREATE TABLE event (
    webhook TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    entry   TEXT    NOT NULL,
    PRIMARY KEY (webhook, number)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 2;
