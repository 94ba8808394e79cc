-- Who left a will or a delayed message: the rights of that user are asked for again when it is due. `roles` are
-- those of a token, and NULL where they are what the user has then. `user` is NULL in what an older program
-- left: that is published as it was. `client_id` of a delayed message is empty if a line published it.
--
-- The way back, with the broker stopped, to a program that knows only schema 17:
--   ALTER TABLE wills DROP COLUMN user;
--   ALTER TABLE wills DROP COLUMN roles;
--   ALTER TABLE delayed DROP COLUMN user;
--   ALTER TABLE delayed DROP COLUMN roles;
--   ALTER TABLE delayed DROP COLUMN client_id;
--   DELETE FROM schema_migrations WHERE version = 18;
--   PRAGMA user_version = 17;
ALTER TABLE wills ADD COLUMN user TEXT;
ALTER TABLE wills ADD COLUMN roles TEXT;
ALTER TABLE delayed ADD COLUMN user TEXT;
ALTER TABLE delayed ADD COLUMN roles TEXT;
ALTER TABLE delayed ADD COLUMN client_id TEXT NOT NULL DEFAULT '';
