"""`pubsub pub` and `pubsub sub` with a terminal and no topic: a line is a command, errors end none.

    pub    <TOPIC> <MESSAGE>
    sub    subscribe <TOPIC>    unsubscribe <TOPIC>    help    quit

Each message that is delivered is a line: `>> DELIVER <TOPIC> <MESSAGE> <PUBLISHER> <TIME>`, with
the time of publication in local time, as in the line protocol. Ctrl-D and Ctrl-C end.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime

from paho.mqtt.client import MQTTMessage

from broker.errors import PubSubError, TopicNameInvalid
from broker.topics import refuse_control_characters, validate_name
from cli.messages import publish, subscribe
from cli.messages.format import metadata
from cli.net.client import NO_SUBSCRIPTION_EXISTED, Client
from cli.net.reconnect import reconnect
from cli.net.session import TELL_SUBSCRIPTIONS, StoredSubscriptions, discard
from cli.net.stdin import Lines
from cli.terminal import output
from cli.terminal.failure import CommandFailed, ConnectionLost
from cli.terminal.interrupt import Interrupt

PROMPT = "> "
TURN_S = 60.0
PUB_HELP = "write <TOPIC> <MESSAGE>, for example: weather Rainy day ahead!   Ctrl-D ends"
SUB_HELP = "subscribe <TOPIC>, unsubscribe <TOPIC>, help, quit"


class Prompt:
    """Asks for a line, while something else may be waited for and printed."""

    def __init__(self) -> None:
        self.lines = Lines(sys.stdin.fileno())

    def show(self) -> None:
        output.text(PROMPT)

    def print(self, line: str) -> None:
        """Above the prompt, which stays the last thing on the screen."""
        output.text(f"\r{line}\n{PROMPT}")

    def answer(self) -> str | None:
        """The next line without its margins, None at the end of input. Only if `is_answered`."""
        if not self.lines.waiting:
            return None
        return self.lines.waiting.popleft().decode("utf-8", "replace").strip()

    def is_answered(self) -> bool:
        if not self.lines.waiting and not self.lines.ended and self.lines.readable():
            self.lines.read()
        return bool(self.lines.waiting) or self.lines.ended


def publish_lines(options: publish.Options) -> None:
    """Until the end of input. The first connection must succeed, later ones are tried again."""
    publisher = publish.Publisher(options)
    publisher.open()
    connected = True
    output.note(PUB_HELP)
    prompt = Prompt()
    prompt.show()
    try:
        while True:
            try:
                while not prompt.is_answered():
                    if connected:
                        publisher.turn(TURN_S, prompt.lines)
                    else:
                        prompt.lines.read()
                line = prompt.answer()
                if line is None:
                    break
                if not connected:
                    publisher = publish.Publisher(options)
                    publisher.open()
                    connected = True
                _publish_line(publisher, line)
            except ConnectionLost as lost:
                connected = False
                output.error(str(publisher.in_doubt(lost)))
            except CommandFailed as error:
                connected = False
                output.error(str(error))
            except PubSubError as error:
                output.error(str(error))
            prompt.show()
    except KeyboardInterrupt:
        pass
    finally:
        publisher.close()
    output.text("\n")


def _publish_line(publisher: publish.Publisher, line: str) -> None:
    if not line:
        return
    topic, _, message = line.partition(" ")
    if not message:
        raise TopicNameInvalid("a message is missing; " + PUB_HELP)
    validate_name(topic)
    refuse_control_characters(topic)
    refused = publisher.refused.total()
    publisher.send(topic, message.encode())
    while not publisher.finished():
        publisher.turn(1.0)
    if publisher.refused.total() > refused:
        output.error("the broker did not accept it")
    else:
        output.text("published\n")


def subscribe_lines(options: subscribe.Options) -> None:
    """Until `quit`, the end of input or Ctrl-C."""
    with Interrupt() as interrupt:
        subscriber = _Subscriber(options, interrupt)
        subscriber.start()
        output.note(SUB_HELP)
        try:
            subscriber.run()
        except KeyboardInterrupt:
            pass
        finally:
            subscriber.client.close()
        output.text("\n")


class _Subscriber:
    def __init__(self, options: subscribe.Options, interrupt: Interrupt) -> None:
        self.client = Client(options.address, options.client_id, interrupt)
        self._options = options
        self._interrupt = interrupt
        self._prompt = Prompt()
        self._filters: set[str] = set()

    def start(self) -> None:
        """Go on with the session of `--id`, and say what it is subscribed to."""
        options = self._options
        if options.fresh:
            said = discard(Client(options.address, options.client_id, self._interrupt))
            if said is not None:
                output.note(f"the session of {options.client_id} is {said}")
        if self._connect(clean_start=options.fresh or not options.durable):
            self._filters |= StoredSubscriptions.of(self.client.session_report).filters
            to = ", ".join(map(output.escaped, sorted(self._filters)))
            output.note(f"resuming {options.client_id} where it stopped{': ' if to else ''}{to}")

    def open(self, *, clean_start: bool) -> None:
        """Connect, and subscribe again to what a session that is gone was subscribed to."""
        if not self._connect(clean_start=clean_start):
            for filter_ in self._filters:
                self._subscribe(filter_)

    def _connect(self, *, clean_start: bool) -> bool:
        durable = self._options.durable
        return self.client.open(
            clean_start=clean_start,
            session_expiry_s=subscribe.SESSION_EXPIRY_S if durable else 0,
            user_properties=TELL_SUBSCRIPTIONS if durable else (),
        )

    def run(self) -> None:
        prompt = self._prompt
        prompt.show()
        while True:
            try:
                while not prompt.is_answered():
                    self.client.turn(TURN_S, [prompt.lines])
                    self._show_arrived()
                line = prompt.answer()
                if line is None or line == "quit":
                    return
                self._obey(line)
            except ConnectionLost as lost:
                output.note(f"connection lost ({lost}); reconnecting")
                reconnect(
                    lambda: self.open(clean_start=not self._options.durable), lost, self._interrupt
                )
                output.note("reconnected")
            except CommandFailed as error:
                output.error(str(error))
            prompt.show()

    def _obey(self, line: str) -> None:
        command, _, topic = line.partition(" ")
        topic = topic.strip()
        if command == "subscribe" and topic:
            self._subscribe(topic)
            self._filters.add(topic)
            output.text(f"subscribed to {topic}\n")
        elif command == "unsubscribe" and topic:
            subscribe.check_filter(topic)
            (reason,) = self.client.unsubscribe_from([topic])
            self._filters.discard(topic)
            if reason.value == NO_SUBSCRIPTION_EXISTED:
                output.error(f"not subscribed to {topic}")
            else:
                output.text(f"unsubscribed from {topic}\n")
        elif command == "help":
            output.text(f"{SUB_HELP}\n")
        elif command:
            output.error(f"unknown command; use {SUB_HELP}")

    def _subscribe(self, topic: str) -> None:
        subscribe.subscribe_to(
            self.client,
            (topic,),
            self._options.qos,
            [("metadata", "true")],
            new_only=self._options.durable,
        )

    def _show_arrived(self) -> None:
        arrived = self.client.arrived
        while arrived:
            message = arrived.popleft()
            self._prompt.print(deliver_line(message, time.time()))
            self.client.acknowledge([message])


def deliver_line(message: MQTTMessage, now: float) -> str:
    known = metadata(message)
    published_at = known.get("published_at")
    at = (
        datetime.fromisoformat(published_at).astimezone()
        if isinstance(published_at, str)
        else datetime.fromtimestamp(now)
    )
    topic, payload, publisher = (
        output.escaped(part)
        for part in (message.topic, bytes(message.payload), str(known.get("publisher", "-")))
    )
    return f">> DELIVER {topic} {payload} {publisher} {at:%Y-%m-%d %H:%M:%S}"
