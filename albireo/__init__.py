"""What Albireo's tiers share: wire types, Redis keys and logs, settings, the client, the command line."""

__version__ = "0.1.0"

DEFAULT_TARGET = "127.0.0.1:50051"
"""Where a gateway listens, host:port, unless it is told otherwise."""
