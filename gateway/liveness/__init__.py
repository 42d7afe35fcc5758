"""Which scheduler, worker group and other models are there."""
