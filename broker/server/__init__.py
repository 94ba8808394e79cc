"""Building all of the broker from a Config; starting, reloading and stopping it."""
