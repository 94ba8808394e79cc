"""The rim: moves bytes between sockets and clients, obeys deadlines and backpressure."""
