"""`pubsub log get`: a message with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from broker.config import DATABASE
from cli.log import database
from cli.log.history import Log
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.times import local

LABELS = {
    "offset": "offset",
    "published_at": "published",
    "publisher": "publisher",
    "topic": "topic",
    "qos": "QoS",
    "retain": "retain",
    "expires_at": "expires",
    "payload_format": "payload format",
    "content_type": "content type",
    "response_topic": "response topic",
    "correlation_data": "correlation data",
    "correlation_data_base64": "correlation data (base64)",
    "user_properties": "user property",
    "payload": "payload",
}
"""What a person reads, in this order."""


def show(data_dir: Path, offsets: Sequence[int], *, json: bool, raw: bool) -> None:
    """Raises CommandFailed (66): some of them are not there. The others are shown."""
    from cli.log.record import record

    with database.reading(data_dir / DATABASE) as connection:
        log = Log(connection)
        found = {message.offset: message for message in log.at(offsets)}
        missing = []
        for number, offset in enumerate(offsets):
            message = found.get(offset)  # type: ignore[call-overload]
            if message is None:
                missing.append(offset)
            elif raw:
                output.data(message.payload)
            elif json:
                output.data(output.json_line(record(message, age_us=log.age_us())))
            else:
                fields = record(message, age_us=log.age_us())
                fields.pop("payload_base64", None)
                fields["payload"] = message.payload
                lines = [*_lines(fields, message.published_at_us)]
                output.text("\n" * bool(number) + "".join(f"{line}\n" for line in lines))
        log.raise_if_damaged()
        if missing:
            raise CommandFailed(
                f"no message at offset {', '.join(map(str, missing))}",
                f"the log has {log.start} to {log.high_watermark}",
                Exit.NOTHING_THERE,
            )


def _lines(fields: dict[str, object], published_at_us: int) -> Iterator[str]:
    """`label` and value, aligned on a terminal, with a tab between them otherwise."""
    terminal = output.to_terminal()
    labels = {key: label for key, label in LABELS.items() if key in fields}
    width = max(map(len, labels.values()))
    for key, label in labels.items():
        value = fields[key]
        values: list[str]
        if isinstance(value, list):
            values = [f"{output.escaped(name)}: {output.escaped(text)}" for name, text in value]
        elif isinstance(value, bool):
            values = ["yes" if value else "no"]
        else:
            values = [output.escaped(value if isinstance(value, bytes) else str(value))]
        if key == "published_at" and terminal:
            values = [f"{local(published_at_us)} ({value})"]
        for text in values:
            yield f"{label:{width}}  {text}" if terminal else f"{label}\t{text}"
