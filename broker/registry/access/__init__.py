"""Who may come in, what they may do, and how much of it: users, rules and quotas in force."""
