"""A gRPC call from its first byte to its last: every phase bounded in time, number and bytes."""
