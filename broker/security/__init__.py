"""Who is it, may they: passwords, users, rules. Pure, but for reading files."""
