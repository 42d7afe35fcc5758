"""Checks of a running compose stack, under load: its containers are killed, and its groups come and go."""
