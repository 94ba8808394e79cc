"""How long a test waits for what must come. Not a bound of anything: other work on the machine, or
a disk that stalls, makes no test fail; a test that hangs ends here."""

PATIENCE_S = 60.0
