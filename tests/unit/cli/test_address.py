"""What is said when a broker is not there or does not let us in."""

from __future__ import annotations

from cli.address import Address
from cli.failure import Exit

ADDRESS = Address(host="h", port=1)


def test_nobody_there_says_how_to_start_a_broker() -> None:
    failed = ADDRESS.unreachable("Connection refused")
    assert str(failed) == (
        "no MQTT broker answers at h:1 (Connection refused); "
        "is it running? start it with: pubsub broker start"
    )
    assert failed.code is Exit.UNREACHABLE


def test_a_refusal_says_what_to_check_only_where_that_helps() -> None:
    failed = ADDRESS.refused("Not authorized", not_authorized=True)
    said = "the broker at h:1 refused the connection: Not authorized"
    assert (str(failed), failed.code) == (f"{said}; check -u and -P", Exit.NOT_AUTHORIZED)
    failed = ADDRESS.refused("Server busy", not_authorized=False)
    assert str(failed) == "the broker at h:1 refused the connection: Server busy"
    assert failed.code is Exit.FAILED
