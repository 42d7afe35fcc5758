"""``albireo trace``: recorded steps as a trace file and as a picture."""
