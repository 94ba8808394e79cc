-- What a session with much in flight has in flight, by Packet Identifier: one row for a page of 32, so that
-- a commit writes what changed. The cursor of the session has their number and the sum of their checksums.
-- Cursors that list it themselves stay as they are until they move.
--
-- The way back, with the broker stopped, to a program that knows only schema 5 (what was on pages is sent
-- again under other Packet Identifiers, so QoS 2 messages may come twice):
--   UPDATE cursors SET inflight = substr(inflight, 6) WHERE substr(inflight, 1, 1) = x'81';
--   UPDATE cursors SET inflight = x'', sent_through = offset WHERE substr(inflight, 1, 1) = x'82';
--   DROP TABLE in_flight;
--   DELETE FROM schema_migrations WHERE version = 6;
--   PRAGMA user_version = 5;
CREATE TABLE in_flight (
    client_id TEXT NOT NULL REFERENCES sessions (client_id) ON DELETE CASCADE,
    page      INTEGER NOT NULL,
    exchanges BLOB NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (client_id, page)
) STRICT, WITHOUT ROWID;
