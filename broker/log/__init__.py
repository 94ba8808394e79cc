"""The log: group commit, the high watermark, the time that goes on from run to run, retention."""
