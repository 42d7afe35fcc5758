"""Triton's kernels, compiled, bring what torch's operations bring."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.kernels import test_triton
from tests.worker_svc.kernels.triton_scene import TritonScene
from worker_svc.kernels.choice import triton_kernels
from worker_svc.kernels.interface import Heads

pytestmark = pytest.mark.gpu("compiled kernels: Triton's interpreter runs them in tests/worker_svc/kernels")


@pytest.fixture
def triton_scene(cuda: torch.device) -> TritonScene:
    kernels = triton_kernels(cuda, torch.bfloat16, 64, Heads(4, 2), 64)
    assert kernels is not None
    return TritonScene(kernels, cuda)


test_norm = test_triton.test_norm
test_gate = test_triton.test_gate
test_a_gate_of_any_size_is_a_number = test_triton.test_a_gate_of_any_size_is_a_number
test_rotate = test_triton.test_rotate
test_rounded = test_triton.test_rounded
test_scaled = test_triton.test_scaled
test_decoding_rows = test_triton.test_decoding_rows
test_chunks = test_triton.test_chunks
test_many_parts = test_triton.test_many_parts
test_padding_rows = test_triton.test_padding_rows_of_a_graph_are_numbers_and_change_nothing
test_nan_stays_with_its_row = test_triton.test_nan_stays_with_its_row
test_no_rows = test_triton.test_no_rows
