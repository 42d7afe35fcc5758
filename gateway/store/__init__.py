"""Redis on an event loop: retries, and this gateway's heartbeat."""
