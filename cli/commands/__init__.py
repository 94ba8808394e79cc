"""The commands, one a file: its options (`run`'s parameters), its help, examples, and what it does.

Every start of `pubsub` imports all of these files, so what is at their top is cheap: `typer` and
names. What a command works with (a broker, HTTP, an MQTT client, a database) it imports when it
runs; `pubsub pub` does not wait for the broker's modules.
"""
