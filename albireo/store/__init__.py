"""The logs, leases and keys in Redis, as the tiers use them."""
