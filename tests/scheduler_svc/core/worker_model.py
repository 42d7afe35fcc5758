"""A worker written from the text of the contract's plan alone, with a KV store that shows every mistake.

A cell of the store holds a hash of the whole token prefix up to its position. A row recomputes the hashes
of all that it attends to and compares: a block with two owners, one that is used again too early, a wrong
prefix hit or a wrong recompute cannot go unnoticed. The tiers below the store are in ``tier_model.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from albireo.contract.plan import (
    BLOCK_SIZE,
    Finish,
    GroupShape,
    Plan,
    SamplingParams,
    StepResult,
    finish_of,
    table_digest,
)
from albireo.contract.tiers import Offload, Span

from .tier_model import Frame, Stored, TierModel

EOS_IDS = frozenset({0})
VOCAB = 24


def cell(before: int, token: int) -> int:
    """What the store holds for ``token`` after a prefix whose last cell is ``before``."""
    return hash((before, token, 0x5EED))


def sample(last_cell: int, seed: int) -> int:
    """The next token: a pure function of the prefix and the request's seed."""
    return hash((last_cell, seed, 0xF00D)) % VOCAB


def solo(prompt: tuple[int, ...], sampling: SamplingParams, max_model_len: int) -> tuple[list[int], Finish]:
    """What a request brings when it runs alone."""
    state = 0
    for token in prompt:
        state = cell(state, token)
    outputs: list[int] = []
    finish = Finish.NONE
    while not finish:
        outputs.append(sample(state, sampling.seed))
        state = cell(state, outputs[-1])
        finish = finish_of(
            sampling,
            outputs[-1],
            len(outputs),
            len(prompt) + len(outputs),
            eos_ids=EOS_IDS,
            max_model_len=max_model_len,
        )
    return outputs, finish


@dataclass
class Row:
    """A slot's state."""

    incarnation: int
    request_id: str
    sampling: SamplingParams
    tokens: list[int]
    num_prompt: int
    computed: int
    blocks: list[int] = field(default_factory=list)
    decoding: bool = False
    joins: bool = False
    paused: bool = False
    finish: Finish = Finish.NONE
    unfetched: bool = False  # it lacks KV: nothing of it counts
    streamed: list[tuple[Frame, bytes]] = field(default_factory=list)  # what is in frames, of which key
    under_way: tuple[int, int, int] | None = None  # first token, count and next layer of its rows


class Worker:
    """Applies plans in order; each call runs one step at once. Copies to and from tiers begin when a plan is
    read, which may be long before."""

    def __init__(self, shape: GroupShape, frames: Mapping[Frame, Stored] | None = None) -> None:
        """``frames``: what the tiers hold from an earlier life."""
        self.shape = shape
        self.slots: dict[int, Row] = {}
        self.store: list[list[int | None]] = [[None] * BLOCK_SIZE for _ in range(shape.num_blocks)]
        self.tiers = TierModel(shape, self.store, dict(frames or {}))
        self.step = self._read_step = 0
        self.wasted: Counter[int] = Counter()  # incarnation -> rows behind its last one
        self.finished: set[int] = set()  # incarnations
        self.reached: dict[int, set[int]] = {}  # step -> blocks that its rows read or write
        self.written: dict[int, set[int]] = {}  # step -> blocks that its rows write
        self.writers: dict[int, str] = {}  # block -> the request that wrote it last
        self.failing: set[str] = set()  # requests that end with an error at their next row

    @property
    def wasted_rows(self) -> int:
        """Rows that it has run behind the last ones of their requests."""
        return self.wasted.total()

    def read(self, plan: Plan) -> None:
        """The input stage has the plan. One that was read before is left as it is."""
        if plan.step > self._read_step:
            assert plan.step == self._read_step + 1
            self._read_step = plan.step
            tables: dict[int, list[int]] = {}
            for slot, blocks in plan.grants:
                tables.setdefault(slot, []).extend(blocks)
            self.tiers.read(plan, tables)

    def run(self, plan: Plan) -> StepResult:
        """Runs one step; raises AssertionError where the plan breaks its contract."""
        assert plan.step == self.step + 1
        self.read(plan)
        self.step = plan.step
        for row in self.slots.values():
            row.decoding, row.joins = row.decoding or row.joins, False
        self._apply(plan)
        self.tiers.begin(plan)
        decoding = [slot for slot in sorted(self.slots) if self.slots[slot].decoding]
        assert plan.num_decodes == len(decoding)
        self.reached[plan.step], self.written[plan.step] = set(), set()
        sampled, unfetched = [], []
        for slot in decoding:
            row = self.slots[slot]
            assert row.computed == len(row.tokens) - 1
            assert self._compute(row, 1)
            sampled.append(slot)
        for chunk in plan.chunks:
            row = self.slots[chunk.slot]
            assert not row.decoding
            assert not row.paused
            assert chunk.start == row.computed
            assert 0 < chunk.count <= len(row.tokens) - row.computed
            if not self.tiers.complete(chunk.slot, plan.step):
                row.unfetched = True
                unfetched.append(row.incarnation)
            if self._compute(row, chunk.count):
                row.joins = True
                sampled.append(chunk.slot)
        assert len({chunk.slot for chunk in plan.chunks}) == len(plan.chunks)
        assert len({span.slot for span in plan.spans}) == len(plan.spans)
        for span in plan.spans:
            row = self.slots[span.slot]
            if not row.unfetched and not self._read_frames(row):
                row.unfetched = True
                unfetched.append(row.incarnation)
            if self._run_span(row, span) and self._compute(row, span.count):
                sampled.append(span.slot)
        if plan.digest is not None:
            assert plan.digest == self.digest()
        self.tiers.end(plan)
        return self._results(plan, sampled, tuple(unfetched))

    def sample(self, row: Row, state: int) -> int:
        """The next token of a row whose newest cell is ``state``; a scripted worker has its own."""
        return sample(state, row.sampling.seed)

    def digest(self) -> int:
        """Of the table as it stands after a step's rows."""
        return table_digest(
            (slot, row.incarnation, row.computed, len(row.blocks), row.blocks[-1] if row.blocks else -1)
            for slot, row in sorted(self.slots.items())
        )

    def _apply(self, plan: Plan) -> None:
        for slot in plan.released:
            del self.slots[slot]
        for slot in plan.paused:
            assert self.slots[slot].decoding
            self.slots[slot].decoding, self.slots[slot].paused = False, True
        for slot in plan.resumed:
            assert self.slots[slot].paused
            self.slots[slot].decoding, self.slots[slot].paused = True, False
        for admission in plan.admissions:
            assert admission.slot not in self.slots
            assert 0 <= admission.slot < self.shape.max_seqs
            assert admission.num_cached % BLOCK_SIZE == 0
            assert admission.num_cached < len(admission.tokens)
            self.slots[admission.slot] = Row(
                incarnation=admission.incarnation,
                request_id=admission.request_id,
                sampling=admission.sampling,
                tokens=list(admission.tokens),
                num_prompt=len(admission.tokens) - admission.num_outputs,
                computed=admission.num_cached,
            )
        for offload in plan.offloads:
            self._offload(self.slots[offload.slot], offload)
        for grant in plan.grants:
            assert grant.blocks
            self.slots[grant.slot].blocks += grant.blocks

    def _offload(self, row: Row, offload: Offload) -> None:
        count = len(offload.frames)
        assert 0 < count == len(offload.keys)
        assert not row.blocks or count <= len(row.blocks)
        frames = [(offload.tier, number) for number in offload.frames]
        row.streamed += zip(frames, offload.keys, strict=True)
        assert len(row.streamed) * BLOCK_SIZE <= row.computed
        del row.blocks[:count]
        row.decoding = row.joins = row.paused = False

    def _read_frames(self, row: Row) -> bool:
        """Whether a streamed row finds in frames what is not in its blocks."""
        state, good = 0, True
        for index, (frame, key) in enumerate(row.streamed):
            stored, cells = self.tiers.frames.get(frame), []
            for token in row.tokens[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]:
                state = cell(state, token)
                cells.append(state)
            if stored is None or stored.key != key:
                assert frame in self.tiers.failed, "a frame that does not hold what is streamed"
                good = False
            else:
                assert stored.cells == tuple(cells), "foreign KV is streamed"
        return self.tiers.streams(row.streamed) and good

    def _run_span(self, row: Row, span: Span) -> bool:
        """Whether the rows of a span have run all layers."""
        assert row.streamed
        assert span.start == row.computed
        assert span.count > 0
        assert span.start + span.count <= max(len(row.tokens), span.start + 1)
        assert span.start < len(row.tokens)
        assert span.first_layer < span.last_layer <= self.shape.num_layers
        assert (row.under_way or (span.start, span.count, 0)) == (span.start, span.count, span.first_layer)
        ended = span.last_layer == self.shape.num_layers
        row.under_way = None if ended else (span.start, span.count, span.last_layer)
        return ended

    def _compute(self, row: Row, count: int) -> bool:
        """Computes the KV of the next ``count`` tokens, after checking all that they attend to. Where some of
        that is known to be missing, what comes of it is as good as nothing.

        True if that reached the last token, so that the row has sampled another one.
        """
        skipped = len(row.streamed) * BLOCK_SIZE
        assert row.computed + count <= skipped + len(row.blocks) * BLOCK_SIZE, "KV beyond the block table"
        state, good = 0, not row.unfetched
        for position in range(row.computed + count):
            state = cell(state, row.tokens[position])
            if position < skipped:
                continue
            block, offset = row.blocks[(position - skipped) // BLOCK_SIZE], position % BLOCK_SIZE
            self.reached[self.step].add(block)
            if position < row.computed:
                found = self.store[block][offset]
                assert found == state or not good, f"foreign KV at {position} of {row.request_id}"
            else:
                self.store[block][offset] = state if good else None
                self.written[self.step].add(block)
                self.writers[block] = row.request_id
        row.computed += count
        if row.computed < len(row.tokens):
            return False
        row.tokens.append(self.sample(row, state if good else ~state))
        if row.finish:
            assert row.finish in (Finish.STOP, Finish.ERROR), "a row beyond a predictable end"
            self.wasted[row.incarnation] += 1
        return True

    def _results(self, plan: Plan, sampled: list[int], unfetched: tuple[int, ...]) -> StepResult:
        rows = []
        for slot in sampled:
            row = self.slots[slot]
            if row.finish or row.unfetched:
                continue
            row.finish = finish_of(
                row.sampling,
                row.tokens[-1],
                len(row.tokens) - row.num_prompt,
                len(row.tokens),
                eos_ids=EOS_IDS,
                max_model_len=self.shape.max_model_len,
            )
            if row.request_id in self.failing:
                row.finish = Finish.ERROR
            if row.finish:
                self.finished.add(row.incarnation)
            rows.append((slot, row.incarnation, row.tokens[-1], int(row.finish)))
        slots, incarnations, ids, finishes = zip(*rows, strict=True) if rows else ((), (), (), ())
        reports = self.tiers.reports(unfetched, later=bool(plan.step % 2))
        return StepResult(plan.epoch, plan.step, slots, incarnations, ids, finishes, **reports)
