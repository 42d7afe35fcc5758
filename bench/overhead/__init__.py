"""What a step costs beside the model, synchronous and overlapped: behind ``albireo bench overhead``."""
