"""What a gateway measures: calls and steps."""
