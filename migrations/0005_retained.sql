-- The names of the topics that have a retained message, so that those that match a Topic Filter are
-- found without looking at the names of all topics.
--
-- The way back, with the broker stopped, to a program that knows only schema 4:
--   DROP TRIGGER retained_set;
--   DROP TRIGGER retained_removed;
--   DROP TABLE retained_names;
--   DROP INDEX retained_expiring;
--   DROP INDEX retained_unknown;
--   ALTER TABLE retained DROP COLUMN expires_at_us;
--   DELETE FROM schema_migrations WHERE version = 5;
--   PRAGMA user_version = 4;
CREATE TABLE retained_names (
    name     TEXT PRIMARY KEY,
    topic_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO retained_names SELECT name, id FROM retained JOIN topics ON id = topic_id ORDER BY name;

CREATE TRIGGER retained_set AFTER INSERT ON retained BEGIN
    INSERT INTO retained_names SELECT name, id FROM topics WHERE id = new.topic_id;
END;
CREATE TRIGGER retained_removed AFTER DELETE ON retained BEGIN
    DELETE FROM retained_names WHERE name = (SELECT name FROM topics WHERE id = old.topic_id);
END;

-- When the retained message expires, so that it is forgotten then. 0: never. NULL: an older program
-- retained it, and its message has yet to be looked at.
ALTER TABLE retained ADD COLUMN expires_at_us INTEGER;
CREATE INDEX retained_expiring ON retained (expires_at_us) WHERE expires_at_us > 0;
CREATE INDEX retained_unknown ON retained (topic_id) WHERE expires_at_us IS NULL;
