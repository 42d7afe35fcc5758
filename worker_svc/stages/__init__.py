"""The three stages of a rank (input, compute, output) and what joins them."""
