"""Fair share between tenants in virtual time: ``python -m bench.fairness``.

The scheduler's core is the real one: its queue, placement and plans. The groups only take the time of a step
and answer with random tokens. No service and no store runs: the share of the queue that a tenant may fill is
checked here, as the store checks it.

- **flood**: one tenant offers 100 times its share. The other's time to first token, against half of the
  groups to itself.
- **weights**: three tenants of weights 1, 2 and 4, each of which always has requests waiting. Their shares of
  the tokens.
- **priorities**: a tenant always has requests of the earliest priority waiting. How long those of the latest
  one wait.
"""
