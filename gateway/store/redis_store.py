"""The store in Redis, for the gateway's event loop; see :class:`gateway.store.interface.GatewayStore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from redis.exceptions import RedisError

from albireo.contract.keys import Keys
from albireo.store.interface import LAST_STEP, EntryId
from albireo.store.redis_errors import moved
from albireo.store.redis_log import FIELD
from albireo.store.scripts import CANCEL, DROP, END, RELEASE, SUBMIT, TAKE, WITHDRAW
from gateway.store.connection import open_client
from gateway.store.interface import (
    CANCEL_VERDICTS,
    CancelVerdict,
    Entries,
    Liveness,
    NewRequest,
    Position,
    QuotaExceeded,
    Verdict,
)

CALL_CONNECTIONS = 64
FOLLOW_CONNECTIONS = 2

RedisEntry = tuple[bytes, dict[bytes, bytes]]
"""An entry as Redis returns it: its id and its fields."""


class RedisGatewayStore:
    """The keys of one model in Redis. Not for two event loops."""

    def __init__(self, url: str, keys: Keys, gateway_id: str) -> None:
        """Connects at the first call. Raises ValueError for what is no Redis URL."""
        self.gateway_id = gateway_id
        self._keys = keys
        self._heartbeat = keys.gateway(gateway_id)
        self._calls = open_client(url, connections=CALL_CONNECTIONS)
        # Own connections: many submissions at once must not delay the results and the heartbeat.
        self._follow = open_client(url, connections=FOLLOW_CONNECTIONS)
        self._submit = self._calls.register_script(SUBMIT)
        self._end = self._calls.register_script(END)
        self._cancel = self._calls.register_script(CANCEL)
        self._drop = self._calls.register_script(DROP)
        self._withdraw = self._calls.register_script(WITHDRAW)

    async def position(self) -> Position:
        keys = self._keys
        async with self._follow.pipeline(transaction=False) as pipe:
            pipe.xrevrange(keys.notices, count=1)  # first: a group that opens afterwards is in what follows
            pipe.smembers(keys.serving)
            notices, serving = cast("tuple[list[RedisEntry], set[bytes]]", await pipe.execute())
        groups = sorted(group.decode() for group in serving)
        async with self._follow.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.xrevrange(keys.results(group), count=1)
            newest = cast("list[list[RedisEntry]]", await pipe.execute())
        ends = {group: _end(entries) for group, entries in zip(groups, newest, strict=True)}
        # One that was closed in between has nothing to follow.
        return Position(_end(notices), {group: end for group, end in ends.items() if end.step != LAST_STEP})

    async def read(self, after: Position, wait: float) -> Entries:
        keys = self._keys
        groups = {keys.results(group): group for group in after.groups}
        streams: dict[bytes | str | memoryview, int | bytes | str | memoryview] = {
            key: str(after.groups[group]) for key, group in groups.items()
        }
        streams[keys.notices] = str(after.notices)
        block_ms = max(1, int(wait * 1000)) if wait > 0 else None  # 0 would wait without end
        replies = cast(
            "list[tuple[bytes, list[RedisEntry]]]", await self._follow.xread(streams, block=block_ms)
        )
        found = {
            name.decode(): [(entry_id, fields.get(FIELD, b"")) for entry_id, fields in entries]
            for name, entries in replies
        }
        notices = found.pop(keys.notices, [])
        return Entries({groups[key]: entries for key, entries in found.items()}, notices)

    async def submit(self, request: NewRequest) -> tuple[Verdict, int]:
        keys = self._keys
        policy = request.policy
        verdict, epoch, *retry_ms = await self._submit(
            keys=[
                keys.request(request.request_id),
                keys.inbox,
                keys.waiting,
                keys.epoch,
                keys.lease,
                self._heartbeat,
                keys.tenants,
                keys.tokens(request.tenant),
            ],
            args=[
                request.digest,
                request.entry,
                request.max_queue,
                int(request.record_seconds * 1000),
                request.branches,
                self.gateway_id,
                request.cancellation,
                keys.gateway(""),
                request.tenant,
                policy.max_requests,
                request.queue_places,
                policy.tokens_per_minute,
                request.tokens,
            ],
        )
        if retry_ms:
            raise QuotaExceeded(verdict.decode(), *retry_ms)
        return cast("Verdict", verdict.decode()), int(epoch)

    async def cancel_known(self, request_id: str) -> CancelVerdict:
        keys = self._keys
        found = await self._cancel(keys=[keys.inbox, keys.lease, keys.epoch, keys.request(request_id)])
        return CANCEL_VERDICTS[found]

    async def cancel(self, cancellation: bytes) -> None:
        await self._drop(keys=[self._keys.inbox, self._keys.lease], args=[cancellation])

    async def withdraw(self, request_id: str, cancellation: bytes) -> None:
        keys = self._keys
        await self._withdraw(keys=[keys.inbox, keys.lease, keys.request(request_id)], args=[cancellation])

    async def note_end(self, request_id: str, cancellation: bytes) -> None:
        await self._end(keys=[self._keys.request(request_id)], args=[cancellation])

    async def start_heartbeat(self, ttl: float) -> None:
        await self._follow.eval(*self._take(ttl))

    async def check(self, ttl: float) -> Liveness:
        async with self._follow.pipeline(transaction=False) as pipe:
            pipe.eval(*self._take(ttl))  # first, so that its error is raised first
            pipe.exists(self._keys.lease)
            pipe.scard(self._keys.serving)
            pipe.get(self._keys.served_model)
            pipe.get(self._keys.epoch)
            pipe.get(self._keys.load)
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        taken, leased, groups, model, epoch, load = cast(
            "tuple[int, int, int, bytes | None, bytes | None, bytes | None]", answers
        )
        return Liveness(taken == 2, bool(leased), groups, model, int(epoch or 0), load)

    async def stop_heartbeat(self) -> None:
        await self._follow.eval(RELEASE, 1, self._heartbeat, self.gateway_id)

    async def load(self) -> bytes | None:
        return cast("bytes | None", await self._calls.get(self._keys.load))

    async def gpus(self, ranks: Sequence[tuple[str, int]]) -> list[bytes | None]:
        if not ranks:
            return []
        names = [self._keys.gpu(group, rank) for group, rank in ranks]
        return cast("list[bytes | None]", await self._calls.mget(names))

    async def recover(self, error: RedisError) -> None:
        if moved(error):
            for client in (self._calls, self._follow):
                await client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        await self._calls.aclose()
        await self._follow.aclose()

    def _take(self, ttl: float) -> tuple[str, int, str, str, str]:
        return TAKE, 1, self._heartbeat, self.gateway_id, str(int(ttl * 1000))


def _end(newest: list[RedisEntry]) -> EntryId:
    return EntryId.parse(newest[0][0]) if newest else EntryId(0, 0)
