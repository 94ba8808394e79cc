"""Forward-only SQL, one file per schema version; `broker/store/sqlite/schema.py` applies it."""
