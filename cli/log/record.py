"""A message of the log as `--json`, exports and `pubsub log get` tell it."""

from __future__ import annotations

from broker.message import Message, rfc3339
from cli.log.properties import named
from cli.terminal import output


def record(message: Message, *, age_us: int = 0) -> dict[str, object]:
    """All that is known of it; what it does not have is left out.

    `age_us`: what is added to aged time to get what the wall clock has then.
    """
    fields: dict[str, object] = {
        "offset": message.offset,
        "published_at": rfc3339(message.published_at_us),
        "publisher": message.publisher,
        "qos": message.qos,
        "retain": message.retain,
        "topic": message.topic,
        **output.payload_fields(message.payload),
    }
    if message.properties:
        fields |= named(message.properties)
    if message.expires_at_us is not None:
        fields["expires_at"] = rfc3339(message.expires_at_us + age_us)
    return fields
