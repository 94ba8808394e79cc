"""The tables of the settings: what one of them is, and what it may say. `config.py` has all."""
