"""Damage and unclean stops: what is missing or wrong is found, told, and worked around."""
