"""Triton's kernels compile for an H100 or H200, and no program keeps its registers in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED_BYTES = 227 << 10
"""Of a multiprocessor, for one program."""
KERNELS = "norm_row gate_tile rotate_head attend_part merge_parts attend_chunk".split()
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("dtype", "heads", "kv", "dim"),
    [
        ("bfloat16", 28, 4, 128),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("float16", 32, 8, 128),
                ("bfloat16", 14, 2, 64),
                ("bfloat16", 16, 8, 32),
                ("bfloat16", 20, 20, 80),
                ("bfloat16", 32, 32, 96),
                ("bfloat16", 8, 4, 256),
                ("bfloat16", 32, 1, 128),
                ("float32", 14, 2, 64),
                ("float32", 28, 4, 128),
                ("float32", 8, 1, 256),
            ]
        ),
    ],
)
def test_a_layer_compiles_without_spills(dtype: str, heads: int, kv: int, dim: int, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    shown = subprocess.run(
        [sys.executable, "-m", "tests.worker_svc.kernels.compiled", dtype, *map(str, (heads, kv, dim))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [name for name, *_ in lines] == KERNELS
    assert {name: int(spilled) for name, _, spilled, _ in lines if int(spilled)} == {}
    assert all(int(shared) <= SHARED_BYTES for *_, shared in lines)
