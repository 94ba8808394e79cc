"""Session State of one client identifier; pure."""
