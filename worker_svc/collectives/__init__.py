"""Communication among the ranks of a group."""
