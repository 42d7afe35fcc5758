"""What the simulated device must show: each fault of stream order brings wrong numbers under some seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.worker_svc.simulated_cuda.device import CudaError
from tests.worker_svc.simulated_cuda.installed import simulated_cuda

SEEDS = range(12)
CUDA = torch.device("cuda")


def numbers_of(seeds: range, program: Callable[[], list[float]]) -> set[tuple[float, ...]]:
    """What a program brings under each seed."""
    found = set()
    for seed in seeds:
        with simulated_cuda(seed):
            found.add(tuple(program()))
    return found


def shown(program: Callable[[bool], list[float]], expected: list[float]) -> bool:
    """Whether a program is right under all seeds as it should be, and wrong under some with its fault."""
    assert numbers_of(SEEDS, lambda: program(False)) == {tuple(expected)}
    return any(found != tuple(expected) for found in numbers_of(SEEDS, lambda: program(True)))


def test_an_event_that_is_not_waited_for() -> None:
    def program(fault: bool) -> list[float]:
        side = torch.cuda.Stream()
        x = torch.zeros(4, device=CUDA)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            x += 1
            ready = side.record_event()
        if not fault:
            torch.cuda.current_stream().wait_event(ready)
        y = x * 2
        side.synchronize()
        found: list[float] = y.tolist()
        return found

    assert shown(program, [2.0] * 4)


def test_an_event_that_is_waited_for_before_it_is_recorded() -> None:
    def program(fault: bool) -> list[float]:
        side, ready = torch.cuda.Stream(), torch.cuda.Event()
        x = torch.zeros(4, device=CUDA)
        if fault:
            side.wait_event(ready)
        ready.record()
        if not fault:
            side.wait_event(ready)
        with torch.cuda.stream(side):
            y = x + 1
            found: list[float] = y.tolist()
        return found

    assert shown(program, [1.0] * 4)


def test_pinned_memory_that_is_filled_again_under_a_copy() -> None:
    def program(fault: bool) -> list[float]:
        host = torch.ones(4, pin_memory=True)
        x = torch.empty(4, device=CUDA)
        x.copy_(host, non_blocking=True)
        copied = torch.cuda.current_stream().record_event()
        if not fault:
            copied.synchronize()
        host.fill_(2)
        found: list[float] = x.tolist()
        return found

    assert shown(program, [1.0] * 4)


def test_pinned_memory_that_is_read_before_the_copy_is_done() -> None:
    def program(fault: bool) -> list[float]:
        host = torch.empty(4, pin_memory=True)
        host.copy_(torch.ones(4, device=CUDA), non_blocking=True)
        copied = torch.cuda.current_stream().record_event()
        if not fault:
            copied.synchronize()
        return host.nan_to_num().tolist()

    assert shown(program, [1.0] * 4)


def test_memory_that_is_freed_under_another_stream() -> None:
    def program(fault: bool) -> list[float]:
        side = torch.cuda.Stream()
        x = torch.ones(4, device=CUDA)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x + 1
        if not fault:
            x.record_stream(side)
        del x
        torch.cuda.current_stream().synchronize()
        side.synchronize()
        return y.nan_to_num().tolist()

    assert shown(program, [2.0] * 4)


def test_a_graph_that_refers_to_memory_outside_its_pool() -> None:
    def program(fault: bool) -> list[float]:
        kept = torch.ones(4, device=CUDA)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = kept + 1
        if fault:
            del kept
        graph.replay()
        return y.nan_to_num().tolist()

    assert shown(program, [2.0] * 4)


def test_a_graph_computes_on_what_its_inputs_hold_when_it_is_replayed() -> None:
    for seed in SEEDS:
        with simulated_cuda(seed):
            x, graph = torch.zeros(3, device=CUDA), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = (x + 1).square()
            for number in range(3):
                x.fill_(number)
                graph.replay()
                assert y.tolist() == [(number + 1.0) ** 2] * 3


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: torch.nonzero(x),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: torch.tensor([1, 2], device=x.device),
        lambda x: torch.ones(4).to(x.device, non_blocking=True),
        lambda x: torch.empty(4).copy_(x, non_blocking=True),
        lambda x: torch.cuda.current_stream().synchronize(),
    ],
)
def test_hidden_waits_are_found(call: Callable[[torch.Tensor], object]) -> None:
    with simulated_cuda(0) as device:
        x = torch.ones(4, device=CUDA)
        torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(CudaError, match="synchronizing"):
            call(x)
        torch.cuda.set_sync_debug_mode("default")
        assert sum(count for name, count in device.counts.items() if name.startswith("sync: ")) == 1


@pytest.mark.parametrize("inference", [False, True])
def test_operators_bring_what_the_cpu_brings(inference: bool) -> None:
    """In the middle of a program, under every policy."""

    def program(device: torch.device) -> list[torch.Tensor]:
        x = torch.arange(24, dtype=torch.float32, device=device).view(2, 3, 4)
        index = torch.tensor([2, 0], device=device)
        y = x.index_select(1, index).transpose(0, 1).flatten(1)
        x.index_copy_(1, index, torch.full((2, 2, 4), 7.0, device=device))
        x.index_fill_(2, index, -1)
        x[1, :2, 1:3] = 5
        z = torch.cat([x.double().cumsum(-1), x.permute(1, 0, 2).reshape(2, 3, 4)])
        z[:, 0] = torch.where(z[:, 0] > 2, z[:, 0], 0.5)
        best, at = z.topk(2, dim=-1)
        z[0][z[0] < 0] = 9
        return [x, y.long(), z, best, at, z.unfold(2, 2, 1).sum(), torch.empty_like(z).copy_(z).int()]

    with torch.inference_mode(inference):
        expected = program(torch.device("cpu"))
    for seed in SEEDS:
        with simulated_cuda(seed), torch.inference_mode(inference):
            found = [tensor.cpu() for tensor in program(CUDA)]
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, other)
