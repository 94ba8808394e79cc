"""The log: group commit, high watermark, time that goes on from run to run, what is due later."""
