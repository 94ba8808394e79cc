"""Forward-only SQL, one file per schema version; `broker/store/schema.py` applies it."""
