"""The store in memory and in virtual time; see :class:`gateway.store.interface.GatewayStore`.

For simulations and tests. Nothing here takes time or fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from redis.exceptions import RedisError

from albireo.contract.keys import Keys
from albireo.store.interface import EntryId
from albireo.virtual import scripts
from albireo.virtual.keyspace import Keyspace
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


class MemoryGatewayStore:
    """One gateway's face of a keyspace that scheduler and workers share."""

    def __init__(self, space: Keyspace, keys: Keys, gateway_id: str) -> None:
        self.gateway_id = gateway_id
        self._space = space
        self._keys = keys
        self._heartbeat = keys.gateway(gateway_id)

    async def position(self) -> Position:
        space, keys = self._space, self._keys
        ends = {
            group: EntryId(*space.stream(keys.results(group)).newest) for group in space.members(keys.serving)
        }
        return Position(EntryId(*space.stream(keys.notices).newest), ends)

    async def read(self, after: Position, wait: float) -> Entries:
        keys = self._keys
        groups = {keys.results(group): group for group in after.groups}
        logs = {key: str(after.groups[group]) for key, group in groups.items()}
        found = await self._space.read_async({**logs, keys.notices: str(after.notices)}, wait)
        notices = found.pop(keys.notices, [])
        return Entries({groups[key]: entries for key, entries in found.items()}, notices)

    async def submit(self, request: NewRequest) -> tuple[Verdict, int]:
        policy = request.policy
        claim = scripts.Claim(
            request.tenant,
            policy.max_requests,
            request.queue_places,
            policy.tokens_per_minute,
            request.tokens,
        )
        verdict, epoch, *retry_ms = scripts.submit(
            self._space,
            self._keys,
            request_id=request.request_id,
            digest=request.digest,
            entry=request.entry,
            queue_bound=request.max_queue,
            record_ttl=request.record_seconds,
            branches=request.branches,
            gateway=self.gateway_id,
            cancellation=request.cancellation,
            claim=claim,
        )
        if retry_ms:
            raise QuotaExceeded(verdict, *retry_ms)
        return cast("Verdict", verdict), epoch

    async def cancel_known(self, request_id: str) -> CancelVerdict:
        return CANCEL_VERDICTS[scripts.cancel(self._space, self._keys, request_id=request_id)]

    async def cancel(self, cancellation: bytes) -> None:
        scripts.drop(self._space, self._keys, cancellation=cancellation)

    async def withdraw(self, request_id: str, cancellation: bytes) -> None:
        scripts.withdraw(self._space, self._keys, request_id=request_id, cancellation=cancellation)

    async def note_end(self, request_id: str, cancellation: bytes) -> None:
        scripts.end(self._space, self._keys, request_id=request_id, cancellation=cancellation)

    async def start_heartbeat(self, ttl: float) -> None:
        scripts.take(self._space, self._heartbeat, self.gateway_id.encode(), ttl=ttl)

    async def check(self, ttl: float) -> Liveness:
        space, keys = self._space, self._keys
        taken = scripts.take(space, self._heartbeat, self.gateway_id.encode(), ttl=ttl)
        return Liveness(
            heartbeat_kept=taken == 2,
            leased=space.get(keys.lease) is not None,
            groups=len(space.members(keys.serving)),
            model=space.get(keys.served_model),
            epoch=space.number(keys.epoch),
            load=space.get(keys.load),
        )

    async def stop_heartbeat(self) -> None:
        scripts.release(self._space, self._heartbeat, self.gateway_id.encode())

    async def load(self) -> bytes | None:
        return self._space.get(self._keys.load)

    async def gpus(self, ranks: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return [self._space.get(self._keys.gpu(group, rank)) for group, rank in ranks]

    async def recover(self, error: RedisError) -> None:
        """Nothing to recover from."""

    async def close(self) -> None:
        """There is no connection."""
