"""The standards, statement by statement: `statements.toml` says which test shows each.

The tests here show what no test of a module, a wire script or a client library does: rules that
hold between packets, sessions and connections, with nothing between the test and the bytes.
"""
