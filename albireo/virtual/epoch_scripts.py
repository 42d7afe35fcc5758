"""What the Lua scripts of :mod:`albireo.store.epoch_scripts` do, on a keyspace in memory: the same answers.

Each function is the script of its name. Nothing else runs in between, since nothing here waits.
"""

from __future__ import annotations

from albireo.contract.keys import Keys
from albireo.store import epoch_entries
from albireo.store.interface import CLOSED_LOG_SECONDS, LAST_STEP, GroupOpening
from albireo.virtual.keyspace import Keyspace


def open_epoch(space: Keyspace, keys: Keys, *, lease_value: bytes) -> int | None:
    """Opens the next epoch and returns it; None where the lease is not ours."""
    if space.get(keys.lease) != lease_value:
        return None
    logs = [key(group) for group in space.members(keys.groups) for key in (keys.plans, keys.results)]
    lasts = (space.stream(key).last[0] for key in (keys.notices, *logs))
    epoch = max(space.number(keys.epoch), *lasts) + 1
    space.delete_set(keys.serving)
    space.hash(keys.tenants).clear()
    space.set(keys.epoch, b"%d" % epoch)
    space.set(keys.waiting, b"0")
    space.set(keys.departed, b"0")
    space.append(keys.notices, (epoch, 0), epoch_entries.epoch_opened(epoch))
    return epoch


def register(space: Keyspace, keys: Keys, *, group: str) -> bool:
    """Registers a group; False where its logs have been closed."""
    if space.stream(keys.results(group)).last[1] == LAST_STEP:
        return False
    space.add(keys.groups, group)
    return True


def leave(space: Keyspace, keys: Keys, *, group: str) -> None:
    """Takes a group off the registered ones."""
    space.remove(keys.groups, group)
    for key in (keys.plans(group), keys.results(group)):
        space.expire_stream(key, ttl=CLOSED_LOG_SECONDS)


def open_group(
    space: Keyspace, keys: Keys, opening: GroupOpening, *, notice: int, lease_value: bytes
) -> bool:
    """Opens the logs of a group; False where the lease, the epoch or a log is not the writer's."""
    entries, notice_id = epoch_entries.group_opened(opening), (opening.epoch, notice)
    logs = (keys.plans(opening.group), keys.results(opening.group))
    if space.stream(keys.notices).has(notice_id, entries.notice):
        return True  # it was done before
    if not _leads(space, keys, notice_id, lease_value) or any(
        _has_come_to(space, key, opening.epoch) for key in logs
    ):
        return False
    for key, entry in zip(logs, entries, strict=False):
        space.append(key, (opening.epoch, 0), entry)
    space.add(keys.serving, opening.group)
    space.append(keys.notices, notice_id, entries.notice)
    return True


def close_group(
    space: Keyspace, keys: Keys, opening: GroupOpening, reason: str, *, notice: int, lease_value: bytes
) -> bool:
    """Closes the logs of a group for good; False as above."""
    entries, notice_id = epoch_entries.group_closed(opening, reason), (opening.epoch, notice)
    logs = (keys.plans(opening.group), keys.results(opening.group))
    if space.stream(keys.notices).has(notice_id, entries.notice):
        return True  # it was done before
    if not _leads(space, keys, notice_id, lease_value) or any(
        _has_come_to(space, key, opening.epoch + 1) for key in logs
    ):
        return False
    space.remove(keys.groups, opening.group)
    space.remove(keys.serving, opening.group)
    for key, entry in zip(logs, entries, strict=False):
        space.append(key, (opening.epoch, LAST_STEP), entry)
        space.expire_stream(key, ttl=CLOSED_LOG_SECONDS)
    space.append(keys.notices, notice_id, entries.notice)
    return True


def _leads(space: Keyspace, keys: Keys, notice_id: tuple[int, int], lease_value: bytes) -> bool:
    """Whether the lease is not another's, and the writer's epoch is open and has not come to this notice."""
    if space.get(keys.lease) not in (None, lease_value) or space.number(keys.epoch) != notice_id[0]:
        return False
    epoch, step = space.stream(keys.notices).last
    return epoch == notice_id[0] and step < notice_id[1]


def _has_come_to(space: Keyspace, log: str, epoch: int) -> bool:
    """Whether a log has entries from an epoch on, or has been closed."""
    last, step = space.stream(log).last
    return step == LAST_STEP or last >= epoch
