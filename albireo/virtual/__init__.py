"""The control plane in virtual time: one thread, no waiting, no Redis, the same result every time.

:class:`albireo.virtual.clock.VirtualClock` is the clock of every service, and
:class:`albireo.virtual.store.MemoryStore` the store of those that block. Time moves only when everything
waits, and then to the next moment at which something is due.
"""
