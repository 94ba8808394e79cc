"""Shared Subscriptions: a group keeps the place in the log, its members lease messages."""
