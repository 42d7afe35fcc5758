"""What spans read: in the order of the layers, ahead of them, and with tiers that block or lose frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
import torch

from albireo.contract.plan import Plan
from albireo.contract.tiers import Frames, Offload
from tests.worker_svc.kv_tiers.scene import LAYOUT, SECONDS, Scene, eventually, key, kv, scene, spill
from worker_svc.kv_tiers import step_streams, streaming
from worker_svc.kv_tiers.limits import MOST_PIECES
from worker_svc.kv_tiers.step_streams import SpanPieces, StepStreams
from worker_svc.kv_tiers.step_transfers import StepTransfers
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS, SpanFrames, StreamedFrames


def stored(s: Scene, count: int) -> None:
    """Frame ``f`` holds the block that is called ``100 + f``."""
    for block in range(count):
        s.put(block, 100 + block)
    plan = Plan(1, 1, spills=(spill({b: b for b in range(count)}, names=[100 + b for b in range(count)]),))
    s.run(plan)


def span(frames: Sequence[int], layers: range, incarnation: int = 5) -> SpanFrames:
    found = StreamedFrames()
    found.add(Offload(0, 0, tuple(frames), tuple(key(100 + frame) for frame in frames)))
    return SpanFrames(incarnation, layers, found.pieces)


def begun(s: Scene, *spans: SpanFrames) -> StepTransfers:
    step = s.transfers.begin(Plan(1, 2), s.incarnations, spans)
    assert step is not None
    return step


def streams_of(step: StepTransfers) -> StepStreams:
    assert step.streams is not None
    return step.streams


def layer_of(pieces: SpanPieces) -> torch.Tensor:
    """``[2, tokens, kv heads, head_dim]`` of the next layer."""
    return torch.cat([torch.stack([p.keys, p.values]) for p in pieces.next_layer()], dim=1)


def expected(frames: Sequence[int], layer: int) -> torch.Tensor:
    return torch.cat([kv(100 + frame)[layer] for frame in frames], dim=1)


def holds(step: StepTransfers, spans: Sequence[SpanFrames], frames: Sequence[Sequence[int]]) -> bool:
    """Runs the layers of a step: whether each span gets what its frames hold."""
    step.start()
    right = True
    for layer in range(LAYOUT.layers):
        for own, pieces, some in zip(spans, streams_of(step).spans, frames, strict=True):
            if layer in own.layers:
                right &= torch.equal(layer_of(pieces), expected(some, layer))
    return right


def test_each_layer_gets_its_part_of_all_frames() -> None:
    with scene(frames=80) as s:
        stored(s, 80)
        frames = [[*range(70, 10, -1), *range(10)], [3, 75]]
        spans = [span(frames[0], range(1, 4)), span(frames[1], range(2, 5), incarnation=6)]
        assert len(spans[0].pieces) == 2
        for _ in range(3):
            step = begun(s, *spans)
            assert holds(step, spans, frames)
            assert step.readers == (5, 6)
            assert step.missing() == [False, False]
        parts = 3 * 3 * (70 + 2)
        recorded = s.transfers.record.take()
        assert recorded is not None
        read = sum(copy.bytes for copy in recorded.transfers if not copy.write)
        assert read == parts * LAYOUT.part_bytes


def test_blocks_that_are_still_to_be_written_come_from_their_buffers() -> None:
    with scene() as s:
        stored(s, 4)
        eventually(lambda: s.stored(3, 103))
        s.tiers[0].writes.clear()
        for block in (4, 5):
            s.put(block, 100 + block)
        s.run(Plan(1, 2, spills=(spill({4: 4, 5: 5}, names=[104, 105]),)))
        frames = [4, 0, 5, 2]
        step = begun(s, span(frames, range(2)))
        assert holds(step, [span(frames, range(2))], [frames])
        assert not s.stored(4, 104)


def test_what_the_step_before_has_still_to_copy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader is ahead of the steps, which may take longer than a layer waits."""
    monkeypatch.setattr(streaming, "FETCH_SECONDS", 0.02, raising=False)
    with scene() as s:
        s.put(0, 100)
        before = s.begin(Plan(1, 1, spills=(spill({0: 0}, names=[100]),)))
        assert before is not None
        step = begun(s, span([0], range(2)))
        time.sleep(0.1)
        before.start()
        assert holds(step, [span([0], range(2))], [[0]])
        assert step.missing() == [False]
        before.settle()


def test_pieces_are_read_ahead_as_far_as_there_are_buffers() -> None:
    with scene(frames=80) as s:
        stored(s, PIECE_BLOCKS + 1)
        eventually(lambda: s.stored(PIECE_BLOCKS, 100 + PIECE_BLOCKS))
        frames = range(PIECE_BLOCKS + 1)
        spans = [span(frames, range(5), incarnation=i) for i in range(2)]
        step = begun(s, *spans)  # 2 spans, 5 layers, 2 pieces each
        ahead = MOST_PIECES + 1  # one more waits in host memory
        eventually(lambda: s.tiers[0].num_reads == ahead)
        time.sleep(0.05)
        assert s.tiers[0].num_reads == ahead
        assert holds(step, spans, [frames, frames])
        assert s.tiers[0].num_reads == 20
        recorded = s.transfers.record.take()
        assert recorded is not None
        reads = [transfer for transfer in recorded.transfers if transfer.streamed]
        assert len(reads) == 5  # one a layer
        assert sum(read.bytes for read in reads) == 2 * len(frames) * LAYOUT.block_bytes


def test_a_frame_that_is_lost_fails_its_span_alone() -> None:
    with scene() as s:
        stored(s, 8)
        eventually(lambda: s.stored(7, 107))
        s.tiers[0].forget([3])
        bad, good = span([2, 3, 4], range(3)), span([5, 6], range(3), incarnation=6)
        step = begun(s, bad, good)
        step.start()
        first, second = streams_of(step).spans
        for layer in range(3):
            assert not list(first.next_layer())
            assert torch.equal(layer_of(second), expected([5, 6], layer))
        assert step.missing() == [True, False]
        recorded = s.transfers.record.take()
        assert recorded is not None
        assert recorded.lost == (Frames(0, (3,)),)
        assert s.transfers.failures == {}  # a frame that it was asked to forget is no fault


def test_a_tier_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_streams, "FETCH_SECONDS", 0.1)
    with scene() as s:
        stored(s, 3)
        eventually(lambda: s.stored(2, 102))
        s.tiers[0].reads.clear()
        for _ in range(2):
            began = time.monotonic()
            step = begun(s, span([0, 1], range(3)), span([2], range(2)))
            step.start()
            assert not [list(s.next_layer()) for s in streams_of(step).spans if list(s.next_layer())]
            assert step.missing() == [True, True]
        assert time.monotonic() - began < 0.1  # the second time
        s.tiers[0].reads.set()
        eventually(lambda: not s.transfers._streams.stuck)
        monkeypatch.setattr(step_streams, "FETCH_SECONDS", SECONDS)
        step = begun(s, span([0, 1], range(3)))
        assert holds(step, [span([0, 1], range(3))], [[0, 1]])


def test_a_tier_that_is_slow_is_waited_for_so_long_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_streams, "MOST_STREAM_SECONDS", 0.2)
    with scene() as s:
        stored(s, 3)
        eventually(lambda: s.stored(2, 102))
        s.tiers[0].read_seconds = 0.08
        step = begun(s, *[span([0, 1], range(5)) for _ in range(4)])
        step.start()
        began = time.monotonic()
        for _ in range(5):
            for pieces in streams_of(step).spans:
                list(pieces.next_layer())
        assert time.monotonic() - began < 20 * 0.08
        assert step.missing() == [True] * 4
        assert s.transfers.failures == {("tier 0", "late"): 8}
        s.tiers[0].read_seconds = 0.0
        assert holds(begun(s, span([0, 1], range(3))), [span([0, 1], range(3))], [[0, 1]])


def test_an_error_of_the_reader_fails_the_steps_spans_and_no_other_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scene() as s:
        stored(s, 3)
        eventually(lambda: s.stored(2, 102))
        with monkeypatch.context() as patch:
            patch.setattr(s.tiers[0], "read", lambda *_: 1 / 0)
            step = begun(s, span([0, 1], range(3)))
            step.start()
            assert not list(streams_of(step).spans[0].next_layer())
        assert step.missing() == [True]
        assert s.transfers.failures == {("tier 0", "error"): 2}
        assert holds(begun(s, span([0, 1], range(3))), [span([0, 1], range(3))], [[0, 1]])


def waiting(step: StepTransfers) -> threading.Thread:
    """The compute stage, which waits for the first layer of a step."""
    step.start()
    thread = threading.Thread(target=lambda: list(streams_of(step).spans[0].next_layer()))
    thread.start()
    return thread


def test_a_new_epoch_waits_for_no_step_of_the_last() -> None:
    with scene() as s:
        stored(s, 2)
        eventually(lambda: s.stored(1, 101))
        s.tiers[0].reads.clear()
        running, staged = begun(s, span([0], range(2))), begun(s, span([1], range(2)))
        thread = waiting(running)
        eventually(s.tiers[0].reading.is_set)
        s.transfers.reset()
        thread.join(0.5)
        assert not thread.is_alive()
        waiting(staged).join(0.5)
        assert running.missing() == staged.missing() == [True]
        s.tiers[0].forget([0])  # the new epoch has another use for it
        s.tiers[0].reads.set()
        eventually(lambda: s.transfers._streams._now is None)
        assert s.transfers.failures == {}  # it is no fault of a tier
        assert (recorded := s.transfers.record.take()) is None or not recorded.lost


def test_the_thread_ends_in_the_middle_of_a_step() -> None:
    """Whose compute stage has ended with all buffers waiting for it."""
    with scene() as s:
        stored(s, 1)
        eventually(lambda: s.stored(0, 100))
        step = begun(s, *[span([0], range(5)) for _ in range(MOST_PIECES)])
        step.start()
        eventually(lambda: s.tiers[0].num_reads == MOST_PIECES + 1)
        time.sleep(0.02)  # it waits for a buffer
        s.transfers._streams.close(SECONDS)
        assert not s.transfers._streams._thread.is_alive()


def test_a_step_that_is_never_executed_holds_up_no_other() -> None:
    with scene(frames=80) as s:
        stored(s, PIECE_BLOCKS + 1)
        eventually(lambda: s.stored(PIECE_BLOCKS, 100 + PIECE_BLOCKS))
        frames = range(PIECE_BLOCKS + 1)
        for _ in range(3):
            begun(s, *[span(frames, range(5)) for _ in range(3)])  # more than the buffers
        last = begun(s, span([1, 2], range(5)))
        assert holds(last, [span([1, 2], range(5))], [[1, 2]])


@pytest.mark.parametrize("offload", [Offload(0, 1, (0,), (key(1),)), Offload(0, 0, (64,), (key(1),))])
def test_frames_that_are_not_there_are_refused(offload: Offload) -> None:
    with scene() as s, pytest.raises(ValueError, match=r"there is no KV tier|has no such frame"):
        s.begin(Plan(1, 1, offloads=(offload,)))
