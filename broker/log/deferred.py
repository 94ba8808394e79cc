"""Deferred: messages of QoS 0 that the next commit has no room for.

They are by topic, for a message must not come into the log before an older one of its topic. The
order across topics does not count, so a flood of one topic does not keep the others waiting.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.message import Message, cost_of


class Deferred:
    """`topic in deferred`: whether a message of this topic waits here."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes in memory."""
        self._by_topic: dict[str, list[Message]] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._by_topic

    def add(self, messages: Sequence[Message]) -> None:
        by_topic = self._by_topic
        for message in messages:
            if (waiting := by_topic.get(message.topic)) is None:
                by_topic[message.topic] = [message]
            else:
                waiting.append(message)
        self.size += cost_of(messages)

    def take_topics(self, messages: Sequence[Message]) -> list[Message]:
        """Everything of the topics of these, which are to come after it."""
        taken: list[Message] = []
        for topic in {message.topic: None for message in messages}:
            taken += self._by_topic.pop(topic, ())
        self.size -= cost_of(taken)
        return taken

    def take(self, bytes_max: int) -> list[Message]:
        """About so many bytes, at least one message; each topic in turn."""
        taken: list[Message] = []
        counts: dict[str, int] = {}
        size = 0
        for topic, waiting in self._by_topic.items():
            if size >= bytes_max:
                break
            count = 0
            while count < len(waiting) and size < bytes_max:
                size += waiting[count].cost
                count += 1
            taken += waiting[:count]
            counts[topic] = count
        for topic, count in counts.items():
            waiting = self._by_topic.pop(topic)
            if count < len(waiting):
                self._by_topic[topic] = waiting[count:]
        self.size -= size
        return taken

    def clear(self) -> list[Message]:
        """Take everything."""
        return self.take(self.size + 1)
