"""Who is there, until when, in whose name: sessions, groups, wills."""
