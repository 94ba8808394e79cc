"""The log: group commit and the high watermark."""
