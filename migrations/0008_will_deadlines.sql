-- When a will is due is kept beside the will, which can be as large as a packet and is read only when
-- it is published. `wills.due_at_us` is not written any more: to drop it would rewrite the wills.
--
-- The way back, with the broker stopped, to a program that knows only schema 7:
--   UPDATE wills SET due_at_us = (SELECT due_at_us FROM will_deadlines d WHERE d.client_id = wills.client_id);
--   DROP TABLE will_deadlines;
--   DELETE FROM schema_migrations WHERE version = 8;
--   PRAGMA user_version = 7;
CREATE TABLE will_deadlines (
    client_id TEXT PRIMARY KEY,
    delay_s   INTEGER NOT NULL,
    due_at_us INTEGER,
    revision  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO will_deadlines
SELECT client_id, delay_s, due_at_us, 1 FROM wills;
