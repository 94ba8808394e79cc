"""Removing messages: what may go, how it goes in small parts, what is known of it afterwards."""
