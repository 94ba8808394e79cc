"""The load generator: MQTT 3.1.1 publishers and subscribers that cost far less than any broker.

    packets      the bytes of many packets of one kind
    connection   a connected client, and the loop over all of them
    load         the clients: Publisher and Subscriber
    measurement  one run of `pubsub bench`; histogram: its latencies; report: what is said of it

One process, one epoll, and no work per message that a slice over many can do:

- A publisher renders its packets once, in a ring whose index is also the Packet Identifier. A pass
  through the ring changes only the upper bytes of the sequence numbers, a write the time of
  sending, both by stride.
- What has one length is read by stride. A packet that begins with the expected fixed header has
  the expected length, so the next one begins that many bytes on: `leading_run` needs no parser.
- Acknowledgements of a publisher's messages come in the order of the messages [MQTT3-4.6.0-2] and
  [MQTT3-4.6.0-3], so a run of them is compared with a slice of the ring of acknowledgements. (Of
  PUBCOMP the standard does not say it. All brokers do it, and we insist.)
- A subscriber acknowledges a run with one write: a template, and the Packet Identifiers by stride.

Being fast must not make it blind: every message carries its publisher's number and a sequence
number, every subscriber checks that each publisher's messages come complete, once and in order,
and anything else on the wire (a repeated message, a foreign packet, a closed connection) raises
`LoadError`. A broker that loses or reorders cannot look fast. Nothing is shared with the broker's
own codec, whose mistakes would otherwise agree with ours. `pubsub bench` and `make bench` both
stand on it.
"""
