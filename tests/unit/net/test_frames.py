"""Section numbers are those of RFC 6455. The frames are made by the client of another library."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.uri import parse_uri

from broker.net.frames import FrameReader, Refused

PING = b"ping"
LENGTHS_OF_EACH_FORM = [0, 1, 125, 126, 127, 65_535, 65_536]
UNMASKED = "00000000"

fragments = st.one_of(
    st.binary(max_size=20), st.sampled_from(LENGTHS_OF_EACH_FORM).map(lambda size: b"x" * size)
)
messages = st.lists(st.lists(fragments, min_size=1, max_size=5), max_size=5)


def sent(messages: list[list[bytes]]) -> bytes:
    """Each fragment in a frame of its own, masked, a ping after each."""
    client = ClientProtocol(parse_uri("ws://localhost"), state=State.OPEN)
    for message in messages:
        for index, fragment in enumerate(message):
            last = index == len(message) - 1
            if index:
                client.send_continuation(fragment, fin=last)
            else:
                client.send_binary(fragment, fin=last)
            client.send_ping(PING)
    return b"".join(client.data_to_send())


def read(reader: FrameReader, data: bytes) -> tuple[bytes, list[bytes], Refused | None]:
    """The payload, the control frames, and why there is no more."""
    payloads: list[bytes] = []
    controls: list[bytes] = []
    reader.feed(data)
    while True:
        frame = reader.next(payloads)
        if not isinstance(frame, bytes):
            return b"".join(payloads), controls, frame
        controls.append(frame)


@given(messages, st.data())
def test_any_fragmentation_in_any_pieces_gives_the_bytes(
    messages: list[list[bytes]], data: st.DataObject
) -> None:
    """5.4, 5.3; control frames may stand between fragments."""
    stream = sent(messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30).map(sorted))
    reader, payload, pings = FrameReader(), b"", 0
    for start, end in pairwise([0, *cuts, len(stream)]):
        more, controls, refused = read(reader, stream[start:end])
        assert refused is None
        payload += more
        pings += len(controls)
    assert payload == b"".join(fragment for message in messages for fragment in message)
    assert pings == sum(map(len, messages))


@given(st.lists(st.lists(st.binary(max_size=130), min_size=1, max_size=4), max_size=4))
def test_byte_by_byte(messages: list[list[bytes]]) -> None:
    reader, payload = FrameReader(), b""
    for byte in sent(messages):
        payload += read(reader, bytes((byte,)))[0]
    assert payload == b"".join(fragment for message in messages for fragment in message)


def test_payload_is_handed_on_before_its_frame_is_whole() -> None:
    """However long it says it will be, and with it whatever the mask begins with."""
    reader = FrameReader()
    assert read(reader, bytes.fromhex("82 FF 7FFFFFFFFFFFFFFF 01020304")) == (b"", [], None)
    assert read(reader, b"\x01\x02\x03") == (bytes(3), [], None)
    assert read(reader, b"\x04\x01") == (bytes(2), [], None)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param("82 00", CloseCode.PROTOCOL_ERROR, id="unmasked, 5.1"),
        pytest.param("89 00", CloseCode.PROTOCOL_ERROR, id="unmasked control frame, 5.1"),
        pytest.param("81 80", CloseCode.UNSUPPORTED_DATA, id="text"),
        pytest.param("01 FF", CloseCode.UNSUPPORTED_DATA, id="first fragment of a long text"),
        pytest.param("C2 80", CloseCode.PROTOCOL_ERROR, id="compressed, 5.2"),
        pytest.param("A2 80", CloseCode.PROTOCOL_ERROR, id="reserved bit, 5.2"),
        pytest.param("C9 80", CloseCode.PROTOCOL_ERROR, id="compressed control frame, 5.2"),
        pytest.param("83 80", CloseCode.PROTOCOL_ERROR, id="reserved opcode, 5.2"),
        pytest.param("8B 80", CloseCode.PROTOCOL_ERROR, id="reserved control opcode, 5.2"),
        pytest.param("80 80", CloseCode.PROTOCOL_ERROR, id="goes on with nothing, 5.4"),
        pytest.param("09 80", CloseCode.PROTOCOL_ERROR, id="fragmented control frame, 5.4"),
        pytest.param("89 FE", CloseCode.PROTOCOL_ERROR, id="long control frame, 5.5"),
        pytest.param(
            f"82 FF 8000000000000000 {UNMASKED}", CloseCode.MESSAGE_TOO_BIG, id="2^63 bytes, 5.2"
        ),
    ],
)
def test_a_frame_is_refused_by_its_header(frame: str, code: CloseCode) -> None:
    before = f"82 81 {UNMASKED} 01"
    payload, controls, refused = read(FrameReader(), bytes.fromhex(before + frame))
    assert (payload, controls) == (b"\x01", [])
    assert refused is not None
    assert refused.code == code


def test_a_new_message_may_not_begin_within_another() -> None:
    """5.4"""
    reader = FrameReader()
    assert read(reader, bytes.fromhex(f"02 80 {UNMASKED}"))[2] is None
    refused = read(reader, bytes.fromhex(f"82 80 {UNMASKED}"))[2]
    assert refused is not None
    assert refused.code == CloseCode.PROTOCOL_ERROR


def test_a_control_frame_is_given_as_it_came() -> None:
    frame = bytes.fromhex(f"89 82 {UNMASKED} 6869")
    assert read(FrameReader(), frame + frame[:3]) == (b"", [frame], None)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_of_any_bytes_no_more_comes_out_than_went_in(pieces: list[bytes]) -> None:
    reader, given, taken = FrameReader(), 0, 0
    for piece in pieces:
        payload, controls, refused = read(reader, piece)
        given += len(piece)
        taken += len(payload) + sum(map(len, controls))
        assert taken <= given
        if refused is not None:
            break
