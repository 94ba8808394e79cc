"""What looks after the log in the background: retention, expiry, damage, the disk."""
