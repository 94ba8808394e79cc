"""Who is there, until when, in whose name: sessions and their operators, wills, other brokers."""
