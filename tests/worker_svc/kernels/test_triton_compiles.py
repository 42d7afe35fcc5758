"""Triton's kernels compile for kinds of GPUs, fit into them, and keep no registers in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = "norm_row gate_tile rotate_head attend_part merge_parts attend_chunk".split()
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("gpu", "dtype", "heads", "kv", "dim"),
    [
        (90, "bfloat16", 28, 4, 128),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (90, "float16", 32, 8, 128),
                (90, "bfloat16", 14, 2, 64),
                (90, "bfloat16", 16, 8, 32),
                (90, "bfloat16", 20, 20, 80),
                (90, "bfloat16", 32, 32, 96),
                (90, "bfloat16", 8, 4, 256),
                (90, "bfloat16", 32, 1, 128),
                (90, "float32", 14, 2, 64),
                (90, "float32", 28, 4, 128),
                (90, "float32", 8, 1, 256),
                (80, "bfloat16", 28, 4, 128),
                (80, "bfloat16", 8, 4, 256),
                (89, "float16", 14, 2, 64),
                (89, "bfloat16", 8, 4, 256),
                (100, "bfloat16", 28, 4, 128),
            ]
        ),
    ],
)
def test_a_layer_compiles_without_spills(
    gpu: int, dtype: str, heads: int, kv: int, dim: int, tmp_path: Path
) -> None:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.worker_svc.kernels.compiled",
            str(gpu),
            dtype,
            *map(str, (heads, kv, dim)),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    rounding = ["scale_tile"] + ["round_row"] * ((dtype != "float32") + (gpu >= 89))
    assert [name for name, *_ in lines] == KERNELS + rounding
    assert {name: int(spilled) for name, _, spilled, _ in lines if int(spilled)} == {}
