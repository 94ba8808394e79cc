-- Which files of this directory made this database, and what they contained.
CREATE TABLE schema_migrations (
    version       INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    applied_at_us INTEGER NOT NULL
) STRICT;

-- The log: every accepted message, in the order accepted. `offset` is never reused (AUTOINCREMENT).
-- topic_id and publisher_id carry no REFERENCES: the one writer interns both in the same
-- transaction, and two look-ups a row are not free on the hot path.
CREATE TABLE topics (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE publishers (
    id        INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE messages (
    offset          INTEGER PRIMARY KEY AUTOINCREMENT,
    topic_id        INTEGER NOT NULL,
    publisher_id    INTEGER NOT NULL,
    published_at_us INTEGER NOT NULL,
    qos             INTEGER NOT NULL,
    retain          INTEGER NOT NULL,
    expires_at_us   INTEGER NOT NULL, -- 0: never (sqlite3 binds an int in a tenth of a NULL's time)
    payload         BLOB NOT NULL,
    properties      BLOB NOT NULL,
    crc             INTEGER NOT NULL
) STRICT;

-- The log start. It is not min(offset), as retained messages outlive their place in the log.
CREATE TABLE log (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    start       INTEGER NOT NULL
) STRICT;
INSERT INTO log VALUES (1, 1);

-- Which blocks of 1024 offsets hold messages of a topic: a sparse index, one row per block and topic.
-- The block leads the key, so that writing goes to the last page however many topics there are, and
-- `trim` removes a range; a reader seeks once a block, about a microsecond.
CREATE TABLE topic_blocks (
    block    INTEGER NOT NULL,
    topic_id INTEGER NOT NULL,
    PRIMARY KEY (block, topic_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE retained (
    topic_id INTEGER PRIMARY KEY REFERENCES topics (id),
    offset   INTEGER NOT NULL
) STRICT;

-- Session State. expires_at_us is NULL while the client is connected.
CREATE TABLE sessions (
    client_id        TEXT PRIMARY KEY,
    session_expiry_s INTEGER NOT NULL,
    created_at_us    INTEGER NOT NULL,
    expires_at_us    INTEGER,
    revision         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    client_id           TEXT NOT NULL REFERENCES sessions (client_id) ON DELETE CASCADE,
    filter              TEXT NOT NULL,
    qos                 INTEGER NOT NULL,
    no_local            INTEGER NOT NULL,
    retain_as_published INTEGER NOT NULL,
    retain_handling     INTEGER NOT NULL,
    subscription_id     INTEGER,
    start_offset        INTEGER NOT NULL,
    until_offset        INTEGER,
    replaying           INTEGER NOT NULL,
    metadata            INTEGER NOT NULL,
    revision            INTEGER NOT NULL,
    PRIMARY KEY (client_id, filter)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    client_id      TEXT PRIMARY KEY REFERENCES sessions (client_id) ON DELETE CASCADE,
    offset         INTEGER NOT NULL,
    sent_through   INTEGER NOT NULL,
    next_packet_id INTEGER NOT NULL,
    inflight       BLOB NOT NULL,
    revision       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE received_qos2 (
    client_id  TEXT PRIMARY KEY REFERENCES sessions (client_id) ON DELETE CASCADE,
    packet_ids BLOB NOT NULL,
    revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE wills (
    client_id     TEXT PRIMARY KEY,
    topic         TEXT NOT NULL,
    payload       BLOB NOT NULL,
    qos           INTEGER NOT NULL,
    retain        INTEGER NOT NULL,
    properties    BLOB NOT NULL,
    expiry_s      INTEGER,
    delay_s       INTEGER NOT NULL,
    due_at_us     INTEGER,
    revision      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened to this log: one row per run of a broker on it.
CREATE TABLE broker_runs (
    id            INTEGER PRIMARY KEY,
    started_at_us INTEGER NOT NULL,
    stopped_at_us INTEGER,
    boot_id       TEXT,
    version       TEXT NOT NULL
) STRICT;

-- For people: stable, documented columns.
CREATE VIEW history AS
SELECT m.offset                                                                       AS offset,
       strftime('%Y-%m-%dT%H:%M:%S', m.published_at_us / 1000000, 'unixepoch')
           || printf('.%06dZ', m.published_at_us % 1000000)                           AS published_at,
       p.client_id                                                                    AS publisher,
       m.qos                                                                          AS qos,
       m.retain                                                                       AS retain,
       t.name                                                                         AS topic,
       m.payload                                                                      AS payload,
       m.published_at_us                                                              AS published_at_us,
       nullif(m.expires_at_us, 0)                                                     AS expires_at_us
FROM messages m
JOIN topics t ON t.id = m.topic_id
JOIN publishers p ON p.id = m.publisher_id;

CREATE VIEW subscribers AS
SELECT s.client_id                                                       AS client_id,
       s.expires_at_us IS NULL                                           AS connected,
       (SELECT count(*) FROM subscriptions f WHERE f.client_id = s.client_id) AS subscriptions,
       c.offset                                                          AS cursor,
       s.session_expiry_s                                                AS session_expiry_s,
       s.expires_at_us                                                   AS expires_at_us
FROM sessions s
LEFT JOIN cursors c ON c.client_id = s.client_id;

CREATE VIEW lag AS
SELECT c.client_id                                                       AS client_id,
       c.offset                                                          AS cursor,
       (SELECT max(offset) FROM messages)                                AS high_watermark,
       max(0, (SELECT max(offset) FROM messages) - c.offset)             AS lag
FROM cursors c;

CREATE VIEW retained_messages AS
SELECT h.topic, r.offset, h.published_at, h.publisher, h.qos, h.payload
FROM retained r
JOIN history h ON h.offset = r.offset;
