"""What a step costs in addition to the model: behind ``albireo bench overhead``."""
