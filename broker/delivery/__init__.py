"""Every committed message to every session that is owed it."""
