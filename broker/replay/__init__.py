"""Replay: from the words of a subscriber to offsets of the log."""
