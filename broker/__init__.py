"""pubsub: a durable MQTT broker on one SQLite file. `server.py` composes it; README maps it."""

__version__ = "0.1.0"
