"""What a person or a pipe sees and types: output, tables, progress, times, Ctrl-C, failures."""
