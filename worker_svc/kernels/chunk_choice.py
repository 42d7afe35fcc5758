"""By which kernels a rank's prefill chunks attend: tried on its device when the model is loaded.

Each rank chooses by itself: its heads are its own, and results differ by rounding alone.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from worker_svc.kernels.chunk_kernel import ChunkKernel
from worker_svc.kernels.chunk_scene import ChunkScene
from worker_svc.kernels.interface import ChunkAttention, Heads, RaggedAttention

logger = logging.getLogger(__name__)

CHECKED = ((40, 512), (300, 64)), ((8000, 64),)
"""Steps whose results are compared: cached tokens and rows of their chunks. A library may cut the long
context of few rows into parts, and merge these."""
TIMED = (0, 4096), (4096, 1024)
"""Of those that are timed: long enough that a launch takes less than what it launches."""
TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""What results may be off: four times what rounding takes. Wrong blocks, lengths or masks take tenths."""
LAYERS, RUNS = 16, 5
"""Of a timed step, since some work is done once a step; and how often it runs."""
HALVES = torch.float16, torch.bfloat16
"""What libraries multiply in tensor cores."""
HOPPER = 9
"""Major number of its compute capability."""
REFUSALS = (
    *(ImportError, OSError, RuntimeError, subprocess.SubprocessError),
    *(AssertionError, AttributeError, LookupError, TypeError, ValueError),
)
"""By which libraries say that they do not run here, or that another release has another interface."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An attention that may be chosen."""

    name: str
    open: Callable[[], ChunkAttention]
    close: Callable[[], None] = lambda: None  # where it has been opened and is not chosen


def chunk_attention(
    device: torch.device, dtype: torch.dtype, heads: Heads, head_dim: int, kernels: RaggedAttention
) -> ChunkAttention | None:
    """The fastest for ``heads`` of a rank. Where no library is installed that ``kernels`` could be compared
    with, theirs, which are not tried again. None where all bring wrong results."""
    own = ChunkKernel(kernels, "Triton")
    others = libraries(device, dtype, heads, head_dim)
    if not others:
        return own
    *checked, timed = (ChunkScene(device, dtype, heads, head_dim, sizes) for sizes in (*CHECKED, TIMED))
    candidates = [Candidate(own.name, lambda: own), *others]
    return fastest(candidates, checked, lambda attention: _layer_seconds(attention, timed))


@torch.inference_mode()
def fastest(
    candidates: Sequence[Candidate],
    scenes: Sequence[ChunkScene],
    layer_seconds: Callable[[ChunkAttention], float],
) -> ChunkAttention | None:
    """Of those that bring the right results of ``scenes``; closes the others, and logs what was found."""
    checks = [(scene, scene.expected()) for scene in scenes]
    right: list[tuple[float, Candidate, ChunkAttention]] = []
    for candidate in candidates:
        attention = None
        logger.info("trying attention of chunks by %s", candidate.name)  # a library may compile, for minutes
        try:
            attention = candidate.open()
            for scene, expected in checks:
                off = float((scene.step(attention).float() - expected).abs().max())
                if not off <= TOLERANCE[scene.q.dtype]:  # NaN is not, either
                    raise ValueError(f"results are off by {off:.2g}")
            right.append((layer_seconds(attention), candidate, attention))
        except REFUSALS as error:
            reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
            logger.warning("no attention of chunks by %s: %s", candidate.name, reason)
            if attention is not None:
                candidate.close()
    if not right:
        logger.warning("no attention of chunks brings right results: torch's operations run in its place")
        return None
    right.sort(key=lambda found: found[0])
    for _, candidate, _ in right[1:]:
        candidate.close()
    times = ", ".join(f"{candidate.name} {seconds * 1e3:.3g} ms" for seconds, candidate, _ in right)
    logger.info("attention of chunks by %s: %s", right[0][1].name, times)
    return right[0][2]


def libraries(device: torch.device, dtype: torch.dtype, heads: Heads, head_dim: int) -> list[Candidate]:
    """Those that are installed, for the devices and dtypes that they are for. They are imported when they are
    tried."""
    found = list[Candidate]()
    if device.type != "cuda" or dtype not in HALVES:
        return found
    if find_spec("flash_attn_interface") and torch.cuda.get_device_capability(device)[0] == HOPPER:
        found.append(Candidate("FlashAttention 3", _flash_attention, _without_flash_attention))
    if find_spec("flashinfer"):
        found.append(Candidate("FlashInfer", lambda: _flashinfer(device, dtype, heads, head_dim)))
    return found


def _flash_attention() -> ChunkAttention:
    from worker_svc.kernels.flash_attention import activate

    return activate()


def _without_flash_attention() -> None:
    from worker_svc.kernels.flash_attention import deactivate

    deactivate()


def _flashinfer(device: torch.device, dtype: torch.dtype, heads: Heads, head_dim: int) -> ChunkAttention:
    from worker_svc.kernels.flashinfer_attention import FlashInferAttention

    properties = torch.cuda.get_device_properties(device)
    return FlashInferAttention(device, dtype, heads, head_dim, properties.multi_processor_count)


def _layer_seconds(attention: ChunkAttention, scene: ChunkScene) -> float:
    """Of the quickest of some steps, a share for each layer. Time on the device."""
    seconds = list[float]()
    for _ in range(1 + RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        scene.step(attention, LAYERS)
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) * 1e-3 / LAYERS)
    return min(seconds[1:])  # the first one warms up
