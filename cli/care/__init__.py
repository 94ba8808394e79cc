"""Care of the file: backup, restore, check, compact, salvage."""
