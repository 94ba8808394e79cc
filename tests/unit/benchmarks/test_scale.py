"""Curves are recorded as they are measured, stop in time, and their load is what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.scale import (
    CURVES,
    Curve,
    Figures,
    Recorder,
    Replayer,
    Results,
    TopicsPublisher,
    attempt,
    each,
    measure,
    topic_name,
)
from benchmarks.subscriptions import packet_end
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, Publish
from broker.topics import matches
from cli.bench.connection import LoadError, Loop
from cli.net.address import Address


def squares(point: int, seconds: float) -> Figures:
    if point == 3:
        raise OSError("no more of that")
    return {"square": float(point**2)}


CURVE = Curve("squares", "numbers", (1, 2, 3), each(squares))


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "scale.json")


def record(
    recorder: Recorder, curve: Curve, *, ticks: Sequence[float] = (), repeat: int = 2
) -> bool:
    clock = iter([0.0, *ticks])
    return measure(
        *(curve, curve.points, recorder),
        seconds=1.0,
        repeat=repeat,
        budget_s=10.0,
        clock=lambda: next(clock, 0.0),
    )


def test_every_run_is_kept_and_a_failed_one_is_recorded(recorder: Recorder) -> None:
    assert record(recorder, CURVE)
    (stored,) = json.loads(recorder.path.read_text())["curves"].values()
    assert stored["complete"]
    assert stored["points"] == [
        {"x": 1, "runs": [{"square": 1.0}] * 2, "errors": []},
        {"x": 2, "runs": [{"square": 4.0}] * 2, "errors": []},
        {"x": 3, "runs": [], "errors": ["no more of that"] * 2},
    ]


def test_a_curve_stops_when_its_time_is_over_and_cleans_up(recorder: Recorder) -> None:
    cleaned = []

    def run(points: Sequence[int], seconds: float, repeat: int) -> Results:
        try:
            yield from each(squares)(points, seconds, repeat)
        finally:
            cleaned.append(True)

    assert not record(recorder, Curve("squares", "numbers", (1, 2), run), ticks=[5.0, 10.0])
    assert cleaned == [True]
    assert not recorder.complete("squares")
    assert recorder.curves["squares"]["points"] == [
        {"x": 1, "runs": [{"square": 1.0}] * 2, "errors": []}
    ]


def test_other_curves_of_the_file_stay(recorder: Recorder) -> None:
    record(recorder, CURVE)
    again = Recorder(recorder.path)
    assert again.complete("squares")
    assert not again.complete("cubes")
    record(again, Curve("cubes", "numbers", (1,), each(squares)), repeat=1)
    assert set(json.loads(recorder.path.read_text())["curves"]) == {"squares", "cubes"}


def test_an_error_keeps_the_last_line_that_the_broker_printed() -> None:
    def fail() -> Figures:
        error = RuntimeError("pubsub does not listen")
        error.add_note("pubsub printed: Traceback\nNameError: x")
        raise error

    assert str(attempt(fail)) == "pubsub does not listen NameError: x"


def test_topics_have_the_length_of_the_filter_that_they_match() -> None:
    assert topic_name(42, 5) == "0/0/0/4/2"
    for number in (0, 42, 9_999_999):
        assert matches("/".join("+" * 7), topic_name(number))


class Unconnected(TopicsPublisher):
    written = b""

    def connect(self, *, clean: bool = True, resume: bool = False) -> None:
        self._unsent = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_a_publisher_goes_round_its_topics(loop: Loop) -> None:
    publisher = Unconnected(loop, Address(), 1500)
    sent = 0
    while sent < 4000:  # More than a ring, and more than once round the topics.
        publisher.allow(400)
        publisher.acked = publisher.arrived = sent = publisher.sent
    shape = publisher.shape
    names = [
        publisher.written[at + len(shape.prefix) + 2 :][: len(shape.topic)].decode()
        for at in range(0, len(publisher.written), shape.length)
    ]
    assert names == [topic_name(number % 1500) for number in range(sent)]


def message(topic: str, payload: bytes) -> bytearray:
    publish = Publish(topic, payload, qos=0, retain=False, dup=False, packet_id=0)
    return bytearray(encode(publish, MQTT_3_1_1))


@pytest.mark.parametrize("payload_bytes", [0, 1, 125, 126, 20_000])
def test_where_a_packet_ends(payload_bytes: int) -> None:
    packet = message("t", bytes(payload_bytes))
    assert packet_end(packet, 0, len(packet)) == len(packet)
    assert packet_end(b"\0" * 3 + packet + packet, 3, 3 + 2 * len(packet)) == 3 + len(packet)
    for cut in range(min(len(packet), 300)):
        assert packet_end(packet, 0, cut) is None


def test_a_replay_is_over_when_its_end_is_told(loop: Loop) -> None:
    replayer = Replayer(loop, Address(), "replayer")
    data = message("t", b"$replay/ended")
    ended = message("$replay/ended", b"$replay/1:2/#")
    replayer.begin(has_end=True)
    both = data + data + ended
    assert replayer.received(both, len(both) - 1) == 2 * len(data)
    assert not replayer.over(2)
    assert replayer.received(ended, len(ended)) == len(ended)
    assert replayer.over(2)
    replayer.begin(has_end=False)
    assert replayer.received(data, len(data)) == len(data)
    assert replayer.over(1)
    assert not replayer.over(2)
    with pytest.raises(LoadError, match="1 messages were replayed, not 0"):
        replayer.check(0)


def test_the_default_points_begin_small_and_rise() -> None:
    for curve in CURVES:
        points = curve.points + curve.full
        assert list(points) == sorted(set(points))
