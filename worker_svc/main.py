"""Starts and stops one rank."""

from __future__ import annotations

import logging
import os
import sys

import torch
from redis.exceptions import RedisError

from albireo.logs import Fenced
from albireo.process import HealthServer, setup_logging, stop_on_signals
from worker_svc.model.config import CheckpointError
from worker_svc.model.parallel import TPGroup, compute_threads
from worker_svc.runner import ModelRunner
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(settings: WorkerSettings) -> None:
    """Serves as one rank of a worker group until it is told to stop."""
    rank = int(os.environ.get("RANK", "0"))
    setup_logging(f"worker-{rank}", settings.log_level)
    stop = stop_on_signals()
    device = _device(settings)
    torch.set_num_threads(settings.threads or compute_threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    health = None
    try:
        group = TPGroup.from_environment(settings.device, timeout_seconds=settings.step_timeout_seconds)
        runner = ModelRunner(
            settings.model,
            group,
            device=device,
            dtype=DTYPES[settings.dtype],
            kv_memory=settings.kv_memory_mib << 20,
            max_seqs=settings.max_seqs,
            max_model_len=settings.max_model_len,
        )
        health = HealthServer(settings.host, settings.port) if rank == 0 else None
        logger.info("%s on %s, %d threads", settings.model, device, torch.get_num_threads())
        WorkerService(settings, group, runner, health, stop).run()
    except (CheckpointError, Fenced, RedisError, OSError) as error:
        sys.exit(f"worker-{rank}: {error}")
    except RuntimeError as error:
        if not stop.is_set():
            raise
        # The peers were told to stop as well; one that left first breaks our last collective.
        logger.info("stopped in a collective: %s", error)
    finally:
        if health is not None:
            health.stop()
    logging.shutdown()
    os._exit(0)  # a peer may be gone: destroying the process group could wait for it


def _device(settings: WorkerSettings) -> torch.device:
    if settings.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit("worker: --device cuda: torch finds no CUDA device")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
