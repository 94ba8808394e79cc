"""The log: group commit, the high watermark, and the time that goes on from run to run."""
