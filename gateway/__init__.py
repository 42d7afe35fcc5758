"""The gateway tier: the public gRPC API in front of the logs."""
