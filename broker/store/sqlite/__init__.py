"""The Store in one SQLite database."""
