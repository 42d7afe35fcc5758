"""Starts and stops one rank."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
from redis.exceptions import RedisError

from albireo.contract.plan import BLOCK_SIZE
from albireo.runtime.kv_memory import DISK_BYTES, KvMemory
from albireo.runtime.process import HealthServer, freeze_heap, stop_on_signals, switch_quickly
from albireo.store.interface import Fenced
from albireo.store.redis_errors import describe
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry import start as start_telemetry
from albireo.telemetry.logs import setup_logging
from worker_svc.collectives.tp_group import TPGroup, compute_threads
from worker_svc.cost.interface import CostModel
from worker_svc.cost.load import load_cost_model
from worker_svc.cost.memory import kv_blocks, useful_blocks
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.tiers import described_tiers
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes
from worker_svc.model.weight_files import weight_bytes
from worker_svc.runner.agreement import agree_on_checkpoint, agree_on_incarnation
from worker_svc.runner.interface import Runner
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.runner.simulated_runner import SimulatedRunner
from worker_svc.runner.tier_opening import TierOptions
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings
from worker_svc.telemetry.gpu import GpuReader

logger = logging.getLogger(__name__)

SMALL_MODEL_BYTES = 64 << 20
"""Below, a step's matrices are so small that a team of threads waits for one another more than it computes,
and spins on cores that the other stages and tiers could use."""
LAST_PORT = 65535
SIMULATED_KV_BYTES = 512 << 20
"""What --kv-memory auto means for a simulated device."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(settings: WorkerSettings) -> None:
    """Serves as one rank of a worker group until a signal stops it."""
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    name = rank_name(settings.group, rank)
    setup_logging(name, settings.log_level, settings.log_format)
    stop = stop_on_signals()
    device = _device(settings, name)
    torch.set_num_threads(_threads(settings))
    health, telemetry = None, OFF
    try:
        telemetry = _telemetry(settings, rank, local_rank)
        group = TPGroup.from_environment(settings.device, timeout_seconds=settings.step_timeout_seconds)
        checkpoint = _checkpoint(settings, group, device)
        runner = _runner(settings, group, device)
        health = HealthServer(settings.host, settings.port) if 0 in (rank, local_rank) else None
        _tell(settings, runner, device, rank)
        if not settings.synchronous:
            freeze_heap()
            switch_quickly()  # the stages share an interpreter: one that has work must not wait long for it
        WorkerService(
            settings,
            group,
            runner,
            checkpoint,
            health,
            stop,
            telemetry,
            GpuReader.of(device, rank),
            incarnation=agree_on_incarnation(group, device),
            on_thread=_compute_alone,
        ).run()
        runner.close()
    except RedisError as error:
        sys.exit(f"{name}: {describe(error)}")
    except (ValueError, Fenced, OSError) as error:
        sys.exit(f"{name}: {error}")
    except torch.OutOfMemoryError as error:
        sys.exit(f"{name}: the device has no memory left, lower --kv-memory: {str(error).splitlines()[0]}")
    except RuntimeError as error:
        if not stop.is_set():
            raise
        # The signal went to the peers as well; one that left first breaks our last collective.
        logger.info("stopped in a collective: %s", error)
    finally:
        if health is not None:
            health.stop()
        telemetry.shutdown()
    logging.shutdown()
    os._exit(0)  # a peer may be gone: destroying the process group could wait for it


def rank_name(group: str, rank: int) -> str:
    """What a rank calls itself in its log, and in the line that it ends with."""
    return f"{group}-rank-{rank}" if group else f"worker-{rank}"


def _compute_alone() -> None:
    """Keeps this thread's tensor operations to itself.

    By default each thread that calls torch gets a team of OpenMP threads, which spin between two
    operations: on the cores where the compute stage's team should run. The setting is the thread's own.
    """
    torch.set_num_threads(1)


def _telemetry(settings: WorkerSettings, rank: int, local_rank: int) -> Telemetry:
    """Raises ValueError and OSError for a port that cannot be taken."""
    port = _metrics_port(settings, local_rank)
    return start_telemetry(
        "worker", settings, host=settings.host, metrics_port=port, rank=rank, group=settings.group
    )


def _metrics_port(settings: WorkerSettings, local_rank: int) -> int | None:
    """Each rank of a machine has its own port, from the given one up. Raises ValueError past the last."""
    if not settings.metrics_port:
        return settings.metrics_port
    port = settings.metrics_port + local_rank
    if port > LAST_PORT:
        raise ValueError(
            f"ALBIREO_WORKER_METRICS_PORT: {settings.metrics_port} and the rank {local_rank} of this machine "
            f"make {port}, past the last port, {LAST_PORT}"
        )
    return port


def _threads(settings: WorkerSettings) -> int:
    if settings.device == "sim":
        return 1  # nothing is computed, and a team of threads would spin
    size, local_ranks = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return settings.threads or rank_threads(settings.model, size, local_ranks)


def rank_threads(model: Path, tp: int, local_ranks: int) -> int:
    """Threads with which a rank of a group of ``tp`` computes by default, where ``local_ranks``, of all
    groups, share this machine."""
    small = weight_bytes(model) // tp < SMALL_MODEL_BYTES
    return 1 if small else compute_threads(local_ranks)


def _checkpoint(settings: WorkerSettings, group: TPGroup, device: torch.device) -> str:
    """The fingerprint of what all ranks read. Raises CheckpointError where they would not run the same."""
    read = settings.device != "sim"
    return agree_on_checkpoint(settings.model, group, device, weights=read, formats=settings.formats)


def _runner(settings: WorkerSettings, group: TPGroup, device: torch.device) -> Runner[Any]:
    """Raises CheckpointError, and ValueError for a bad cost model."""
    settings.formats.check_device(settings.device)
    if settings.device == "sim":
        config, dtype = ModelConfig.from_dir(settings.model), DTYPES[settings.dtype]
        cost = load_cost_model(settings.cost_model, config, group.size, dtype_bytes=dtype.itemsize)
        return SimulatedRunner(
            settings.model,
            cost,
            rank=group.rank,
            kv_memory=_simulated_memory(settings, cost),
            max_seqs=settings.max_seqs,
            max_model_len=settings.max_model_len,
            sampling="driver" if settings.synchronous else settings.sampling,
            tiers=described_tiers(
                cost, ModelShape(config, group.size, dtype.itemsize), _simulated_sizes(settings)
            ),
        )
    return ModelRunner(
        settings.model,
        group,
        device=device,
        dtype=DTYPES[settings.dtype],
        formats=settings.formats,
        kv_memory=KvMemory.parse(settings.kv_memory),
        gpu_memory_share=settings.gpu_memory_share,
        local_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        max_seqs=settings.max_seqs,
        max_model_len=settings.max_model_len,
        synchronous=settings.synchronous,
        sampling=settings.sampling,
        tiers=TierOptions(
            KvMemory.parse_or_none(settings.kv_host_memory),
            settings.kv_disk,
            KvMemory.parse_disk(settings.kv_disk_size) or DISK_BYTES,
        ),
    )


def _simulated_memory(settings: WorkerSettings, cost: CostModel) -> int:
    """Bytes for KV blocks, of all ranks together. A device that is not there has nothing free to share out.

    Auto is what a described device has left, else a constant. Raises ValueError.
    """
    kv_memory = KvMemory.parse(settings.kv_memory)
    if kv_memory.share is not None:
        raise ValueError(f"kv_memory: {settings.kv_memory}: --device sim takes a size, such as 8GiB, or auto")
    if kv_memory.size is not None:
        return kv_memory.size
    if not isinstance(cost, PhysicalCost):
        return SIMULATED_KV_BYTES
    shape = cost.shape
    blocks = kv_blocks(
        cost.device,
        shape.config,
        cost.tp,
        max_seqs=settings.max_seqs,
        gpu_memory_share=settings.gpu_memory_share,
        dtype_bytes=shape.dtype_bytes,
    )
    useful = useful_blocks(settings.max_seqs, settings.max_model_len)
    return min(blocks, useful) * block_bytes(shape.config, 1, torch.bfloat16)


def _simulated_sizes(settings: WorkerSettings) -> dict[str, int]:
    """Bytes of the tier in host memory on each rank; empty for auto, which is what the device's file says.

    Raises ValueError, also for a disk: what a simulated one is like is in that file alone.
    """
    if settings.kv_disk is not None:
        raise ValueError(f"kv_disk: {settings.kv_disk}: --device sim has the tiers of its cost model's file")
    asked = KvMemory.parse_or_none(settings.kv_host_memory)
    if asked is None:
        return {"host": 0}
    if asked.share is not None:
        raise ValueError(
            f"kv_host_memory: {settings.kv_host_memory}: --device sim takes a size, auto or none"
        )
    return {} if asked.size is None else {"host": asked.size}


def _tell(settings: WorkerSettings, runner: Runner[Any], device: torch.device, rank: int) -> None:
    if rank == 0:
        for text in runner.config.warnings:
            logger.warning("%s: %s", settings.model, text)
    logger.info("%s on %s, %d threads", settings.model, device, torch.get_num_threads())
    blocks = runner.shape.num_blocks
    logger.info(
        "KV memory: %d tokens in %d blocks, %.1f MiB on each rank (kv_memory %s, gpu_memory_share %g)",
        blocks * BLOCK_SIZE,
        blocks,
        runner.kv_bytes / (1 << 20),
        settings.kv_memory,
        settings.gpu_memory_share,
    )
    for tier in runner.shape.tiers:
        logger.info(
            "KV tier %s: %d tokens in %d frames on each rank, %.3g ms to read a block, %.3g ms to write one",
            tier.name,
            tier.frames * BLOCK_SIZE,
            tier.frames,
            tier.read_block_seconds * 1e3,
            tier.write_block_seconds * 1e3,
        )


def _device(settings: WorkerSettings, name: str) -> torch.device:
    if settings.device != "cuda":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit(f"{name}: --device cuda: torch finds no CUDA device")
    local_rank, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= devices:
        sys.exit(f"{name}: rank {local_rank} of this machine has no GPU: there are {devices}")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
