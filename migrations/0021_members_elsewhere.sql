-- Groups whose workers are at several brokers of a shared log (docs/cluster.md): who they are, what each broker was
-- leased, and what became of that. Of no use to a broker alone.
--
-- The way back, with the broker stopped, to a program that knows only schema 20:
--   DROP TABLE loan_reports;
--   DROP TABLE loans;
--   DROP TABLE members_elsewhere;
--   DELETE FROM schema_migrations WHERE version = 21;
--   PRAGMA user_version = 20;
CREATE TABLE members_elsewhere (
    client_id TEXT NOT NULL REFERENCES sessions (client_id) ON DELETE CASCADE,
    broker    TEXT NOT NULL,
    number    INTEGER NOT NULL,
    worker    TEXT NOT NULL,
    window    INTEGER NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (client_id, broker, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE loans (
    client_id TEXT NOT NULL REFERENCES sessions (client_id) ON DELETE CASCADE,
    broker    TEXT NOT NULL,
    number    INTEGER NOT NULL,
    leases    TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (client_id, broker, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE loan_reports (
    client_id TEXT NOT NULL REFERENCES sessions (client_id) ON DELETE CASCADE,
    broker    TEXT NOT NULL,
    number    INTEGER NOT NULL,
    report    TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (client_id, broker, number)
) STRICT, WITHOUT ROWID;
