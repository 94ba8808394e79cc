"""To a broker by MQTT: which one, as whom, and the client that the commands drive."""
