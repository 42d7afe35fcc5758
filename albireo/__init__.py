"""What Albireo's tiers share: wire types, Redis keys and logs, settings, the client, the command line."""

import os

__version__ = "0.1.0"

DEFAULT_TARGET = "127.0.0.1:50051"
"""Address of a gateway, host:port, where none is configured."""

# Read by gRPC when it is loaded. By default it logs a line for every header of a peer that it cannot parse:
# any client could fill the disk.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
