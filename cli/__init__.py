"""The `pubsub` command: an ordinary MQTT client, and a door to the broker's own administration."""
