"""A request: validated, completed with defaults, and put into the inbox."""
