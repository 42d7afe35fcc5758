"""The store that all tiers share, as a gateway uses it on its event loop."""
