"""What the scheduler measures: its own state, steps, and waiting times of traced requests."""
