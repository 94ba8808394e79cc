"""The load generator: what `pubsub bench` measures a broker with, and `make bench` as well."""
