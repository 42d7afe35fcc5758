"""Starts and stops the scheduler process."""

from __future__ import annotations

import logging
import sys

from redis.exceptions import RedisError

from albireo.runtime.process import HealthServer, collect_rarely, freeze_heap, stop_on_signals
from albireo.store.interface import Fenced
from albireo.store.redis_errors import describe
from albireo.telemetry import start as start_telemetry
from albireo.telemetry.logs import setup_logging
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings

logger = logging.getLogger(__name__)


def run(settings: SchedulerSettings) -> None:
    """Plans batches for the worker groups of one model and publishes them into Redis."""
    setup_logging("scheduler", settings.log_level, settings.log_format)
    stop = stop_on_signals()
    try:
        telemetry = start_telemetry(
            "scheduler", settings, host=settings.host, metrics_port=settings.metrics_port
        )
        health = HealthServer(settings.host, settings.port)
    except OSError as error:
        sys.exit(f"scheduler: {error}")
    logger.info("health on %s:%d", settings.host, health.port)
    try:
        service = SchedulerService(settings, health, stop, telemetry)
        freeze_heap()
        collect_rarely()  # the core breaks its cycles itself
        service.run()
    except Fenced as error:
        sys.exit(f"scheduler: it no longer owns the logs: {error}")
    except RedisError as error:
        sys.exit(f"scheduler: {describe(error)}")
    except ValueError as error:
        sys.exit(f"scheduler: {error}")
    finally:
        health.stop()
        telemetry.shutdown()
