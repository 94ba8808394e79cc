"""Held: messages that stay in the log whatever its retention, since something else points at them.

This is the one place that says which: a table that points at messages adds a line to `HELD`.
"""

from __future__ import annotations

HELD = """(
    EXISTS (SELECT 1 FROM retained r WHERE r.topic_id = m.topic_id AND r.offset = m.offset)
    OR EXISTS (SELECT 1 FROM dead_letters d WHERE d.offset = m.offset)
    OR EXISTS (SELECT 1 FROM retries t WHERE t.offset = m.offset)
)"""
"""A condition on the row `m` of `messages`. Each part of it is a look-up by an index."""
