"""The broker's process: its diagnostics, its memory, no core dumps."""
