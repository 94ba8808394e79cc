"""Which messages a reader asks for: by topic, by time, how many, how much is unread."""
