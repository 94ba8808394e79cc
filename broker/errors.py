"""Every exception of the project, as one tree.

- `ConfigError`: the operator asked for something impossible; the CLI prints it and exits with 2.
- `CommandRefused`: the operator asked a broker for what cannot be done now, or
  (`CommandInvalid`) never.
- `PeerError`: the other side broke a rule. It carries the MQTT 5 Reason Code that says which and
  ends at most the connection it came from. Bytes from outside can raise nothing else.
- `StoreError`: the log cannot do its work now (`StoreUnavailable`, `StoreFull`,
  `StoreBusy`) or at all.

Our own mistakes are asserts, never a `PeerError`.
"""

from __future__ import annotations


class PubSubError(Exception):
    """The root: whatever we raise on purpose."""


class ConfigError(PubSubError):
    """A setting that cannot work: `key` names it, `remedy` says what to do instead."""

    def __init__(self, key: str, value: object, remedy: str) -> None:
        super().__init__(f"{key} = {value!r}: {remedy}")
        self.key = key
        self.value = value
        self.remedy = remedy


class CommandRefused(PubSubError):
    """What an operator asked a broker for cannot be done. `remedy` says what can, or is empty."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class CommandInvalid(CommandRefused):
    """What was asked has no meaning, in whatever state a broker is: to a script, wrong usage."""


class NotFound(CommandRefused):
    """Nobody and nothing has that name."""


class PeerError(PubSubError):
    """The other side broke a rule; `reason_code` is its Reason Code (MQTT 5, section 2.4)."""

    reason_code = 0x80
    reference = ""
    """Of another broker, to go on there."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedPacket(PeerError):
    """Bytes that cannot be parsed as the packet they claim to be."""

    reason_code = 0x81


class ProtocolViolation(PeerError):
    """A packet that parses but that the protocol does not allow here."""

    reason_code = 0x82


class ReplaySpecInvalid(PeerError):
    """A place in the log that cannot be understood; MQTT has no code of its own for that."""

    reason_code = 0x83


class UnsupportedProtocolVersion(PeerError):
    reason_code = 0x84


class ClientIdentifierNotValid(PeerError):
    reason_code = 0x85


class NotAuthorized(PeerError):
    reason_code = 0x87


class LoginRefused(NotAuthorized):
    """Whoever it is may not come in. Who raises this has told it to the operator."""


class BadUserNameOrPassword(LoginRefused):
    reason_code = 0x86


class ProofFailed(BadUserNameOrPassword):
    """The proof of `user` is wrong. Not told yet: who comes from its address may have to wait."""

    def __init__(self, user: str) -> None:
        super().__init__("wrong user name or password")
        self.user = user


class TooManyLogins(LoginRefused):
    """Its password was not even looked at."""

    reason_code = 0x97


class UserRemoved(PeerError):
    """An operator removed the user of the connection."""

    reason_code = 0x98


class BadAuthenticationMethod(PeerError):
    reason_code = 0x8C


class TopicFilterInvalid(PeerError):
    reason_code = 0x8F


class TopicNameInvalid(PeerError):
    reason_code = 0x90


class MessageRefused(PeerError):
    """It refuses one PUBLISH, and not the connection.

    `dropped_as` is the reason under which that message counts as dropped.
    """

    def __init__(self, reason: str, dropped_as: str) -> None:
        super().__init__(reason)
        self.dropped_as = dropped_as


class TopicNameRefused(MessageRefused, TopicNameInvalid):
    """A legal name that no client may publish to."""


class PropertyRefused(MessageRefused):
    """A legal text that no client may send in a property of a message."""

    reason_code = 0x99


class ReceiveMaximumExceeded(PeerError):
    reason_code = 0x93


class TopicAliasInvalid(PeerError):
    reason_code = 0x94


class PacketTooLarge(PeerError):
    reason_code = 0x95


class QuotaExceeded(PeerError):
    reason_code = 0x97


class UseAnotherServer(QuotaExceeded):
    """Another broker that shares the log has the room that this one has not, or goes on when this
    one has ended. `reference`: `host:port` of it; "": that is not known."""

    reason_code = 0x9C

    def __init__(self, reason: str, reference: str = "") -> None:
        super().__init__(reason)
        self.reference = reference


class ServerMoved(UseAnotherServer):
    """For good."""

    reason_code = 0x9D


class RetainedQuotaExceeded(MessageRefused, QuotaExceeded):
    """A message to be retained on a topic more than its user may have."""


class SharedSubscriptionsNotSupported(PeerError):
    reason_code = 0x9E


class StoreError(PubSubError):
    """The store could not do what was asked; nothing of the call may be taken as stored.

    The error itself is for the operator and names files; `reason` is for clients and does not.
    """

    reason = "the broker cannot use its log now"
    reference = ""


class StoreUnavailable(StoreError):
    """Not done, or not known to be done: read again and decide. Never acknowledge on it."""


class StoreFull(StoreUnavailable):
    """No space left for the log. Nothing was stored; the call may be repeated when there is."""

    reason = "the broker's disk is full"


class StoreDenied(StoreUnavailable):
    """The operating system does not let us: another owner, or a file system that is read-only."""


class StoreInUse(StoreUnavailable):
    """Another broker has the log. Nothing was begun: try again when it has ended."""


class StoreBusy(StoreUnavailable):
    """Another program has locked the log. Nothing was stored; the call may be repeated."""


class StoreConflict(StoreError):
    """A document's revision is not the expected one: nothing of the transaction was done.

    `of`: the client identifiers whose sessions another broker has now. `keys`: digests of the keys
    of messages that another broker has stored before. Without what is of them the rest may be done.
    """

    def __init__(
        self, reason: str, of: frozenset[str] = frozenset(), keys: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(reason)
        self.of = of
        self.keys = keys


class StoreCorrupt(StoreError):
    """Stored bytes are not what was written. Do not go on with this database."""

    reason = "the log is damaged"


class StoreFenced(StoreUnavailable):
    """The other brokers of the shared log took this one for dead: it must start anew."""

    reason = "the broker was cut off from the others"


class SchemaMismatch(StoreError):
    """Not our database, or one from a newer program. Do not start."""


class LogReplaced(SchemaMismatch):
    """The shared log is another one than this copy was made of, or lost what it had."""
