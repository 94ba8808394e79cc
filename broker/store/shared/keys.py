"""Keys: which messages are not to be stored once more, in a log that brokers share.

Two brokers may take the same deduplication key before either hears of the other. The order of the
log decides, at every broker alike: while there is a DedupDocument, an append that makes it again
does not count. One of them removes it when its time is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.documents import DedupDocument, Operation, Put


class Keys:
    """Digests of the keys that are taken."""

    def __init__(self, documents: Iterable[DedupDocument]) -> None:
        self._taken = {bytes.fromhex(document.digest) for document in documents}

    def repeated(self, operations: Sequence[Operation]) -> set[str]:
        """Those that these would take again."""
        repeated: set[str] = set()
        free: set[str] = set()
        for operation in operations:
            if isinstance(operation, Put):
                document = operation.document
                if type(document) is DedupDocument and self._is_taken(document.digest, free):
                    repeated.add(document.digest)
            elif operation.kind is DedupDocument and operation.key:
                free.add(str(operation.key[0]))
        return repeated

    def _is_taken(self, digest: str, free: set[str]) -> bool:
        return digest not in free and bytes.fromhex(digest) in self._taken

    def changed(self, operations: Sequence[Operation]) -> None:
        """These count."""
        for operation in operations:
            if isinstance(operation, Put):
                if type(operation.document) is DedupDocument:
                    self._taken.add(bytes.fromhex(operation.document.digest))
            elif operation.kind is DedupDocument and operation.key:
                self._taken.discard(bytes.fromhex(str(operation.key[0])))
