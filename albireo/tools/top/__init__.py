"""A live view of a running stack, as ``albireo top`` shows it."""
