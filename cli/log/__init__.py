"""The log as commands show, question, export and fill it."""
