"""The load of a model: what its schedulers publish, one in each cell, and the GPUs of its groups.

Backends read it for the ``Control`` service, on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.v1 import control_pb2 as control
from gateway.store.interface import GatewayStore

ADDED = (
    *("waiting", "running", "steps_in_flight", "slots_total", "slots_free"),
    *("blocks_total", "blocks_free", "blocks_cached", "preemptions"),
    *("prefix_hit_tokens", "prompt_tokens", "wasted_rows"),
)
"""Fields of a ``Load`` that are sums over its groups."""


def joined(loads: Sequence[control.Load]) -> control.Load:
    """One ``Load`` for several cells. Epoch and step are the highest; the wait is the shortest that is known,
    since requests go where they wait least."""
    if len(loads) == 1:
        return loads[0]
    waits = [load.wait_seconds for load in loads if load.wait_seconds >= 0]
    step = max(load.step for load in loads)
    total = control.Load(
        epoch=max(load.epoch for load in loads),
        step=step,
        group_alive=any(load.group_alive for load in loads),
        integrity_checked_step=step if all(load.integrity_checked_step == load.step for load in loads) else 0,
        wait_seconds=min(waits, default=-1.0),
        **{field: sum(getattr(load, field) for load in loads) for field in ADDED},
    )
    for load in loads:
        total.integrity_violations.extend(load.integrity_violations)
        total.gpus.extend(load.gpus)
        total.groups.extend(load.groups)
        for tenant, waiting in load.waiting_by_tenant.items():
            total.waiting_by_tenant[tenant] += waiting
    return total


async def load_in(store: GatewayStore, prefix: str) -> control.Load | None:
    """What a scheduler publishes, with the GPUs of its groups; None where there is none. ``prefix`` goes
    before the names of groups.

    Raises RedisError, and DecodeError for what cannot be read.
    """
    data = await store.load()
    if data is None:
        return None
    load = control.Load.FromString(data)
    for group in load.groups:
        group.name = prefix + group.name
    ranks = [(group, rank) for group in load.groups for rank in range(group.tp)]
    found = await store.gpus([(group.incarnation, rank) for group, rank in ranks])
    for (group, _), gpu in zip(ranks, found, strict=True):
        if gpu is not None:
            load.gpus.add(group=group.name).MergeFromString(gpu)
    return load
