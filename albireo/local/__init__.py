"""A whole stack on one machine: Redis, the tiers as processes, and their supervisor; for ``albireo up``."""
