"""From rows of the results log to the events that a client reads."""
