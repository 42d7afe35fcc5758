"""Starts and stops the gateway process."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from redis.exceptions import RedisError

from albireo.runtime.process import freeze_heap, give_memory_back
from albireo.store.redis_errors import describe
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry import start as start_telemetry
from albireo.telemetry.logs import setup_logging
from gateway.service import Gateway
from gateway.settings import GatewaySettings
from gateway.text.pretrained import without_torch

logger = logging.getLogger(__name__)

MEMORY_SECONDS = 10.0
"""Interval at which freed memory is returned to the operating system."""


def run(settings: GatewaySettings) -> None:
    """Serves the API until a signal stops it."""
    setup_logging("gateway", settings.log_level, settings.log_format)
    telemetry = OFF
    try:
        telemetry = start_telemetry(
            "gateway",
            settings,
            host=settings.host,
            metrics_port=settings.metrics_port,
            model=settings.model_name if settings.model is not None else "",
        )
        with without_torch():
            asyncio.run(_serve(settings, telemetry))
    except RedisError as error:
        sys.exit(f"gateway: {describe(error)}")
    except (OSError, ValueError) as error:
        sys.exit(f"gateway: {error}")
    finally:
        telemetry.shutdown()


async def _serve(settings: GatewaySettings, telemetry: Telemetry) -> None:
    gateway = Gateway(settings, telemetry)
    await gateway.start()
    freeze_heap()
    logger.info("listening on %s:%d", settings.host, gateway.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waits = [asyncio.create_task(wait) for wait in (stop.wait(), gateway.wait(), _return_memory())]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waits:
            task.cancel()
        await gateway.stop()


async def _return_memory() -> None:
    """Returns memory that a burst of calls has used and freed to the operating system, periodically."""
    while True:
        await asyncio.sleep(MEMORY_SECONDS)
        await asyncio.to_thread(give_memory_back)
