"""KV tiers: whether tokens stay the same, and what they bring to conversations that come back."""
