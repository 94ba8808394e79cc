"""The line protocol: SUBSCRIBE, PUBLISH, DELIVER as lines of text."""
