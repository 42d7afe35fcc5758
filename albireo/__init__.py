"""What Albireo's tiers share: wire types, Redis keys and logs, settings, the client, the command line."""

__version__ = "0.1.0"
