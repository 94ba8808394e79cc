-- Who is subscribed to a group: a group whose last subscriber has gone is to end, and the subscriptions of
-- absent sessions are nowhere but here.
--
-- The way back, with the broker stopped, to a program that knows only schema 8:
--   DROP INDEX subscriptions_shared;
--   DELETE FROM schema_migrations WHERE version = 9;
--   PRAGMA user_version = 8;
CREATE INDEX subscriptions_shared ON subscriptions (filter) WHERE filter >= '$share/' AND filter < '$share0';
