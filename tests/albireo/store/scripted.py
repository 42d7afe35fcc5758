"""The operations of gateways and of operators on both stores, called the same way."""

from __future__ import annotations

from typing import Protocol, cast

import redis

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import SamplingParams, Submission
from albireo.store.scripts import CANCEL, DROP, END, SUBMIT, WITHDRAW
from albireo.virtual import scripts
from albireo.virtual.keyspace import Keyspace

RECORD_SECONDS = 60


def entry_of(name: str) -> bytes:
    """A submission for the inbox."""
    return codec.submission_to_bytes(Submission(name, (1, 2), SamplingParams(max_tokens=1, seed=0)))


class Scripts(Protocol):
    """``name``: of one acceptance, in the logs; the request's id where there is no other. All are of tenant
    ``t``; ``most``: its quota of requests at once."""

    def submit(
        self,
        request_id: str,
        *,
        name: str = "",
        digest: str = "d",
        bound: int = 2,
        n: int = 1,
        gateway: str = "g",
        most: int = 0,
    ) -> tuple[str, int]: ...

    def end(self, request_id: str, *, name: str = "") -> None: ...

    def cancel(self, request_id: str) -> int: ...

    def drop(self, name: str) -> None: ...

    def withdraw(self, request_id: str, *, name: str = "") -> None: ...

    def delete(self, key: str) -> None:
        """As if a key had expired."""
        ...

    def delete_log(self, key: str) -> None:
        """As if a log had expired."""
        ...

    def members(self, key: str) -> set[str]:
        """Of a set."""
        ...

    def hash(self, key: str) -> dict[bytes, bytes]: ...

    def seconds_left(self, key: str) -> float:
        """Until a log expires; infinite where it does not."""
        ...


class RedisScripts:
    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def submit(
        self,
        request_id: str,
        *,
        name: str = "",
        digest: str = "d",
        bound: int = 2,
        n: int = 1,
        gateway: str = "g",
        most: int = 0,
    ) -> tuple[str, int]:
        keys, name = self._keys, name or request_id
        names = [keys.request(request_id), keys.inbox, keys.waiting, keys.epoch, keys.lease]
        names += (keys.gateway(gateway), keys.tenants, keys.tokens("t"))
        ttl, cancellation = str(RECORD_SECONDS * 1000), codec.cancellation_to_bytes(name)
        arguments = (digest, entry_of(name), str(bound), ttl, str(n), gateway, cancellation, keys.gateway(""))
        answer = self._client.eval(SUBMIT, len(names), *names, *arguments, "t", str(most), "0", "0", "0")
        assert isinstance(answer, list)
        return answer[0].decode(), answer[1]

    def end(self, request_id: str, *, name: str = "") -> None:
        cancellation = codec.cancellation_to_bytes(name or request_id)
        self._client.eval(END, 1, self._keys.request(request_id), cancellation)

    def cancel(self, request_id: str) -> int:
        keys = self._keys
        names = (keys.inbox, keys.lease, keys.epoch, keys.request(request_id))
        answer = self._client.eval(CANCEL, 4, *names)
        assert isinstance(answer, int)
        return answer

    def drop(self, name: str) -> None:
        names = (self._keys.inbox, self._keys.lease)
        self._client.eval(DROP, 2, *names, codec.cancellation_to_bytes(name))

    def withdraw(self, request_id: str, *, name: str = "") -> None:
        names = (self._keys.inbox, self._keys.lease, self._keys.request(request_id))
        self._client.eval(WITHDRAW, 3, *names, codec.cancellation_to_bytes(name or request_id))

    def delete(self, key: str) -> None:
        self._client.delete(key)

    def delete_log(self, key: str) -> None:
        self._client.delete(key)

    def members(self, key: str) -> set[str]:
        return {member.decode() for member in cast("set[bytes]", self._client.smembers(key))}

    def hash(self, key: str) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes]", self._client.hgetall(key))

    def seconds_left(self, key: str) -> float:
        left = self._client.pttl(key)
        return left / 1000 if left >= 0 else float("inf")


class MemoryScripts:
    def __init__(self, space: Keyspace, keys: Keys) -> None:
        self._space = space
        self._keys = keys

    def submit(
        self,
        request_id: str,
        *,
        name: str = "",
        digest: str = "d",
        bound: int = 2,
        n: int = 1,
        gateway: str = "g",
        most: int = 0,
    ) -> tuple[str, int]:
        name = name or request_id
        return scripts.submit(
            self._space,
            self._keys,
            request_id=request_id,
            digest=digest,
            entry=entry_of(name),
            queue_bound=bound,
            record_ttl=RECORD_SECONDS,
            branches=n,
            gateway=gateway,
            cancellation=codec.cancellation_to_bytes(name),
            claim=scripts.Claim("t", most, 0, 0, 0),
        )[:2]

    def end(self, request_id: str, *, name: str = "") -> None:
        cancellation = codec.cancellation_to_bytes(name or request_id)
        scripts.end(self._space, self._keys, request_id=request_id, cancellation=cancellation)

    def cancel(self, request_id: str) -> int:
        return scripts.cancel(self._space, self._keys, request_id=request_id)

    def drop(self, name: str) -> None:
        scripts.drop(self._space, self._keys, cancellation=codec.cancellation_to_bytes(name))

    def withdraw(self, request_id: str, *, name: str = "") -> None:
        cancellation = codec.cancellation_to_bytes(name or request_id)
        scripts.withdraw(self._space, self._keys, request_id=request_id, cancellation=cancellation)

    def delete(self, key: str) -> None:
        self._space.delete(key)

    def delete_log(self, key: str) -> None:
        self._space.expire_stream(key, ttl=0)

    def members(self, key: str) -> set[str]:
        return set(self._space.members(key))

    def hash(self, key: str) -> dict[bytes, bytes]:
        return self._space.hash(key)

    def seconds_left(self, key: str) -> float:
        return self._space.stream(key).expires - self._space.clock.now()
