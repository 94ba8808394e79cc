"""Mixed: what is not simply messages of one QoS, from one client, on its way into the log."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from broker.clients.asking import Asked
from broker.log.batch import OnCommitted, OnFailed, StateSource
from broker.log.log import Log
from broker.message import Message


def append_mixed(
    log: Log,
    messages: Sequence[Message],
    committed: OnCommitted,
    failed: OnFailed,
    *,
    keep_if_full: bool,
) -> None:
    """Append them in their order. QoS 0 does not wait for the commit of the others. `committed` is
    called for the last run of QoS 1 and 2; alone, if there is none."""
    runs = [[*run] for _, run in groupby(messages, lambda message: message.qos > 0)]
    awaited = [run for run in runs if run[0].qos] or [[]]
    for run in runs:
        if not run[0].qos:
            log.append(run, durable=False)
        elif run is not awaited[-1]:
            log.append(run, keep_if_full=keep_if_full)
        else:
            log.append(run, committed, failed, keep_if_full=keep_if_full)
    if not awaited[-1]:
        log.append([], committed, failed, keep_if_full=keep_if_full)


def append_asked(
    log: Log,
    asked: Asked,
    committed: OnCommitted,
    failed: OnFailed,
    source: StateSource,
    *,
    qos: int,
    keep_if_full: bool,
) -> None:
    """A message with what it asks for. QoS 0 is delivered at once, if it may be before it is in the
    log."""
    messages = asked.messages
    if not (qos or log.qos0.logs_first):
        log.append(messages, durable=False, keep_if_full=keep_if_full)
        messages = ()
    log.append(
        messages,
        committed,
        failed,
        durable=qos > 0,
        keep_if_full=keep_if_full,
        operations=asked.operations,
        place=asked.place,
        source=source,
    )
