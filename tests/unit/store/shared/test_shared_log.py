from __future__ import annotations

from broker.store.shared.shared_log import begins_later


def test_who_lacks_what_was_removed_is_told_where_it_is() -> None:
    for wanted, says in ((5, "this copy ends at 4:"), (1, "there is no copy here yet:")):
        told = str(begins_later(9, wanted))
        assert told.startswith(f"the shared log begins at record 9, and {says}")
        assert told.endswith("`pubsub restore FILE --replace`")
