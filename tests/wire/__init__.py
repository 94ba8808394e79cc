"""The standard, chapter by chapter, in bytes: what a client may write, and what it is answered.

Each test is a script that runs twice, its writes whole and byte by byte (`conftest.py`). They stand
at the Connection, so here is what it decides alone; what needs a session is tested elsewhere.
"""
