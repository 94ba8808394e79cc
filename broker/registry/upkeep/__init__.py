"""Which messages of the log are still wanted, and by whom; what an operator has removed."""
