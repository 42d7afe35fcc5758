"""What all tiers agree on: plans, results, requests, their bytes, and the keys that they lie under."""
