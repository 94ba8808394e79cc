"""A store of several brokers: one log that they share, and a copy of it at each."""
