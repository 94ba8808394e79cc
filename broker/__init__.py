"""pubsub: a durable publish-subscribe broker. MQTT clients outside, one SQLite file inside.

    socket bytes ─▶ net ─▶ mqtt, lines ─▶ clients ─▶ log: group commit ─▶ store: one transaction
                           decode, rules   act                │
                                                              ├─▶ PUBACK, PUBREC: it is on the disk
                                                              ▼
    socket bytes ◀─ net ◀─ mqtt, lines ◀─ clients ◀─ session ◀─ delivery
                           encode          send       in flight  live, or behind: reads the log

A PUBLISH goes along the upper line; once its commit is durable the publisher is acknowledged and
the message goes along the lower line to every session that wants it. A session that is behind, or
was away, is fed from the store. Nothing on the way calls back to the stage before it.

    server/      builds all of this from a Config, starts it, stops it; reads settings again
    config.py    every setting, with its unit in its name
    settings/    its tables: listeners, rules of retention, keys that repeat
    net/         moves bytes: TCP, Unix sockets, TLS, WebSocket; obeys deadlines and back-pressure
    mqtt/        MQTT 3.1.1 and 5.0: bytes to packets, packets to bytes, the rules of a connection
    lines/       the line protocol, with the same face
    clients/     one connected client; only here connection, session and log meet
    delivery/    every committed message to every session that is owed it
    registry/    sessions and wills: who is there, until when; what other brokers have
        groups/      Shared Subscriptions: what members get, what becomes of what they refuse
        access/      users, rules and quotas in force
        upkeep/      what of the log is still wanted, and by whom
    session/     what MQTT keeps of one client identifier
    security/    who is it, and may they: names, passwords, rules
    replay/      from the words of a subscriber to offsets of the log
    log/         group commit, the high watermark, time that outlives a run, what is due later
        upkeep/      retention, expiry, damage, room on the disk
    store/       messages and documents in memory
        sqlite/      in a database: one thread writes, others read
            files/       made, opened, migrated, checkpointed, copied
            searching/   which messages a reader asks for
            retention/   which may go, and how they go
            repair/      what an unclean stop or damage leaves
        shared/      in a log that several brokers share
    observe/     $SYS: what the broker tells about itself
    at_rest.py   what an operator does to the subscribers of a log that no broker has
    web/         administration over HTTP on a Unix socket
    documents/   what the log keeps beside messages
    message.py topics.py counters.py errors.py handed_on.py    what everybody speaks of
    clock.py tasks.py cache.py plural.py    time, tasks, what is remembered, how many

What is promised:

- P1  A PUBACK, PUBREC or (line protocol) OK leaves only after the message is committed and fsynced.
- P2  Offsets rise and are never reused, also after a crash and after retention removed everything.
- P3  A durable subscriber gets every matching message above its cursor, in offset order within a
      topic, at least once; QoS 2 exactly once over the hop, also across a crash.
- P4  What a subscriber acknowledged is not sent again after a clean stop; after a kill at most its
      in-flight window is.
- P5  Nothing is dropped silently: each drop has a counter and a reason.
- P6  After a failed write or fsync the broker acknowledges nothing that it cannot prove stored.
- P7  Memory does not grow with the backlog of a slow or absent subscriber.
- P8  A flipped bit in a stored message is detected, and never delivered as something else.
- P9  QoS 0 never waits for the disk: it is delivered as it comes and logged later, unless an older
      QoS 1 or 2 message of its topic waits.

Our own words; all others are those of MQTT and of logs in general:

- *grant*: how one session gets one message: QoS, RETAIN, Subscription Identifiers, merged from all
  of its subscriptions that match.
- *lease*: a message of a shared subscription that one member has; the group keeps it in flight.
- *live*, *behind*: a live session is fed with each batch as it is committed. One that is behind has
  a reader, which reads the log for it until it has caught up.
- *ahead*: a live session that was handed every QoS 0 message so far as it came, before its commit.
  One that cannot take a message stays *back*, and gets it from the log.
- *outbox*: what a session gets from its own place in the log, waiting for the client.
- *aside*: what it gets from elsewhere (retained messages, replays, leases), before the outbox.
- *owed*: retained messages that a new subscription has still to be sent.
- *held*: a message that stays whatever its rule of retention, since something points at it.
- *cursor*: everything at or below it is acknowledged.
- *document*: what the log keeps beside messages: sessions, subscriptions, cursors, wills.
"""

__version__ = "0.1.0"
