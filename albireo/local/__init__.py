"""A whole stack on one machine: Redis, the tiers as processes, their supervision."""
