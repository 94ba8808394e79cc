"""What an operator does: to a broker that runs, here or elsewhere, or to its log at rest."""
