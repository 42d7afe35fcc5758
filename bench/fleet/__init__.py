"""One scheduler that leads many groups, in virtual time: ``python -m bench.fleet``.

The scheduler's service and core are the real ones, on a store in memory. The groups only answer plans: a step
takes as long as the case says, and its tokens are random. There is no gateway; requests go into the inbox.
"""
