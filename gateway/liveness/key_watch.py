"""Keeps the API keys of this gateway as they are in the store: a new or revoked one counts within a second.

One task of the event loop runs it (``KeyWatch.run``, started by the gateway).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from albireo.runtime.clock import Clock
from albireo.runtime.loopback import is_loopback
from gateway.calls.callers import Keyring
from gateway.liveness.periodic import Periodic
from gateway.store.api_keys import ApiKeySource

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class NoKeys(ValueError):
    """There is no API key, and the gateway may not serve without one."""


class KeyWatch:
    """Asks the store once a second whether the keys have changed, and reads them if so."""

    def __init__(
        self,
        source: ApiKeySource,
        clock: Clock,
        *,
        is_open: bool,
        host: str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``is_open``: whether calls need no key as long as there is none. ``host``: where clients reach the
        gateway, for messages. ``wall``: seconds since the Unix epoch, by which keys expire."""
        self.keyring = Keyring(is_open=is_open, wall=wall, now=clock.now)
        self._source = source
        self._host = host
        self._version: bytes | None = None
        self._periodic = Periodic("API keys", WATCH_SECONDS, self._follow)

    async def start(self) -> None:
        """Reads the keys. Raises RedisError, and NoKeys where calls need one and there is none."""
        count = await self._read()
        if self.keyring.is_open:
            level = logging.INFO if is_loopback(self._host) else logging.WARNING
            logger.log(level, "no API key: everyone who reaches %s is served, as any tenant", self._host)
        elif not count:
            raise NoKeys(
                f"no API key: create one (albireo keys create --tenant NAME), or serve everyone who reaches "
                f"{self._host} (--open)"
            )

    def stop(self) -> None:
        """Ends ``run``."""
        self._periodic.stop()

    async def close(self) -> None:
        """Gives the connection back, after ``run`` has ended."""
        await self._source.close()

    async def run(self) -> None:
        """Follows the keys until stopped. Without an answer the last ones count for ``KEEP_SECONDS``."""
        await self._periodic.run()

    async def _follow(self) -> None:
        if await self._source.version() == self._version:
            self.keyring.confirm()
        else:
            await self._read()

    async def _read(self) -> int:
        """Returns how many there are, those that cannot be read included."""
        found = await self._source.read()
        for problem in found.problems:
            logger.warning("%s", problem)
        count = len(found.keys) + len(found.problems)
        if count and self.keyring.is_open:
            logger.info("there are API keys: from now on every call needs one")
        self.keyring.replace(found.keys, needed=count > 0)
        self._version = found.version
        return count
