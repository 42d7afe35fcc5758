"""What a rank measures: steps, its GPU, spans of traced requests."""
