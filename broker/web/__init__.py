"""What the broker shows over HTTP. Reads snapshots; never holds a session."""
