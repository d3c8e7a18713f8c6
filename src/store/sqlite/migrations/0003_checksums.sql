-- SQLite does not notice a flipped bit in a value. `webhook` has had a checksum from the first, and the seal of a `secret` is
-- one; now every other row has its own, over its other columns but the number it is kept in order by. NULL: written before.
ALTER TABLE memo     ADD COLUMN checksum BLOB;
ALTER TABLE journal  ADD COLUMN checksum BLOB;
ALTER TABLE attempt  ADD COLUMN checksum BLOB;
ALTER TABLE evidence ADD COLUMN checksum BLOB;
ALTER TABLE probe    ADD COLUMN checksum BLOB;
ALTER TABLE event    ADD COLUMN checksum BLOB;

PRAGMA user_version = 3;
