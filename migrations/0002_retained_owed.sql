-- Of the retained messages that matched a subscription when it was made, those whose offset is above
-- retained_after and at or below retained_through are still owed.
ALTER TABLE subscriptions ADD COLUMN retained_after INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN retained_through INTEGER NOT NULL DEFAULT 0;
