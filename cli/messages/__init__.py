"""`pubsub pub` and `pubsub sub`: messages that go out and come in now."""
