"""Real services together in virtual time: scheduler, gateways and workers without processes and Redis."""
