from tests.support.fixtures import broker, dial, name, own_broker, version

__all__ = ["broker", "dial", "name", "own_broker", "version"]
