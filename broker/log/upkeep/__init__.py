"""What looks after the log between its commits: retention, expiry, damage, the disk."""
