"""The files of a database: made, locked, opened, migrated, checkpointed, copied, put back."""
