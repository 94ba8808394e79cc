"""SQL that only goes forward, a file for each version; store/sqlite/files/schema.py applies it."""
