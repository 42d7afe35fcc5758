"""Checks every plan against what is known outside the core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import replace

from albireo.contract.plan import (
    BLOCK_SIZE,
    Admission,
    Ended,
    Finish,
    GroupShape,
    Plan,
    StepResult,
    blocks_for,
)
from scheduler_svc.core import Limits

from .story import Story, family, has_failed
from .tier_auditor import TierAuditor
from .tier_model import Frame, Stored
from .worker_model import Row, Worker

EPOCH = 7


class Auditor:
    """Follows the plans as they are published. It asks the core for nothing.

    That no slot and no block is used again before the last step that used it has settled is known by a worker
    model of its own, which runs every plan at once and so knows what each step reads and writes.
    """

    def __init__(
        self,
        shape: GroupShape,
        limits: Limits,
        stories: Mapping[str, Story],
        frames: Mapping[Frame, Stored],
    ) -> None:
        """``frames``: what the tiers hold at first."""
        self.tables: dict[int, list[int]] = {}  # slot -> blocks, as published
        self.by_incarnation: dict[int, str] = {}  # -> branch name
        self._limits = limits
        self._stories = stories
        self._steps = 0  # audited
        self._worker = Worker(shape, frames)
        self._tiers = TierAuditor(shape.tiers if limits.prefix_cache else ())
        self._last_used: dict[str, int] = {}  # branch name -> last published step that runs it
        self._slot_used: dict[int, int] = {}  # slot -> last published step that runs it
        self._block_used: dict[int, int] = {}  # block -> last published step that reads or writes it
        self._block_written: dict[int, int] = {}  # block -> last published step that writes it

    def audit(self, plan: Plan, *, in_flight: int, settled: int, now: float) -> None:
        """A plan is published, ``in_flight`` others are in flight already, ``settled`` steps have settled."""
        self._steps += 1
        assert (plan.epoch, plan.step) == (EPOCH, self._steps)
        self._check_budgets(plan, in_flight)
        self._tiers.audit(plan, settled)
        for slot in plan.released:
            del self.tables[slot]
        for admission in plan.admissions:
            assert self._slot_used.get(admission.slot, 0) <= settled, "a slot whose last step has not settled"
            self.by_incarnation[admission.incarnation] = admission.request_id
            self._check_admission(self._stories[admission.request_id], admission, plan, settled)
            self._check_alone(admission.request_id, plan)
            self.tables[admission.slot] = []
        assert len(self.tables) <= self._limits.max_num_seqs
        self._check_grants(plan, settled)
        for ended in plan.ended:
            self._check_ended(self._stories[ended.request_id], ended, now)
        self._note_uses(plan)

    def wasted_rows(self, finished: Set[int]) -> int:
        """Rows planned behind the last ones of incarnations that have finished, whether they run or not."""
        return sum(self._worker.wasted[incarnation] for incarnation in finished)

    def _check_budgets(self, plan: Plan, in_flight: int) -> None:
        limits = self._limits
        copies = plan.spills, plan.fetches, plan.offloads
        worth = (plan.paused, plan.chunks, plan.spans, plan.ended, plan.num_decodes, *copies)
        if not self._tiers.known:
            assert not any((*worth, plan.released, plan.admissions)), "a plan before the contents are known"
            assert in_flight == 0, "a second plan before the contents are known"
            return
        assert any((*worth, plan.released, plan.admissions)), "an empty plan"
        if not any(worth):
            assert in_flight == 0, "a release alone that takes a place in the window"
        tokens = plan.num_decodes + sum(chunk.count for chunk in plan.chunks)
        assert tokens <= limits.max_num_batched_tokens
        counts = [chunk.count for chunk in plan.chunks] + [span.count for span in plan.spans]
        assert all(count <= limits.prefill_chunk for count in counts)
        if plan.digest is not None:
            assert plan.step % limits.digest_every == 0

    def _check_admission(self, story: Story, admission: Admission, plan: Plan, settled: int) -> None:
        """Recompute begins with what was delivered, all of it. The prompt is computed once for all branches,
        and once more where its log-probabilities are needed."""
        submission, tokens = story.submission, admission.tokens
        assert not story.final
        assert tokens == (*submission.prompt, *story.read)
        assert admission.num_outputs == len(story.read)
        logprobs = -1 if story.read else submission.sampling.prompt_logprobs
        most = min(submission.sampling.max_tokens, story.context - len(submission.prompt))
        assert admission.sampling == replace(submission.sampling, max_tokens=most, prompt_logprobs=logprobs)
        computed = any(
            family(row.request_id) == family(submission.request_id) and self._lends(row, settled)
            for slot, row in self._worker.slots.items()
            if slot not in plan.released
        )
        if logprobs >= 0:
            assert admission.num_cached == 0
        elif computed:
            shared = min(len(submission.prompt), len(tokens) - 1) // BLOCK_SIZE
            assert admission.num_cached >= shared * BLOCK_SIZE
        story.admitted = True
        if story.progressed:
            story.deaths = 0
        story.begun = len(story.read)

    def _lends(self, row: Row, settled: int) -> bool:
        """Whether the plans so far compute the whole prompt of a row, from KV that is known to be there."""
        computed = row.decoding or row.joins or row.paused
        return computed and self._tiers.is_verified(row.request_id, settled)

    def _check_alone(self, name: str, plan: Plan) -> None:
        """Nothing else is in a slot with a request that may end the group."""
        slots = self._worker.slots.items()
        present = {row.request_id for slot, row in slots if slot not in plan.released}
        present |= {admission.request_id for admission in plan.admissions}
        stories = [self._stories[other] for other in present]
        suspect = [story for story in stories if story.deaths >= 2 and story.open and not story.progressed]
        assert not suspect or len(present) == 1, f"{name} runs with one that is to run alone"

    def settled(self, result: StepResult) -> None:
        """The core has the result of the next step."""
        self._tiers.settled(result)
        for incarnation in result.unfetched:  # what is still in flight of it is no attempt at its tokens
            self._last_used.pop(self.by_incarnation[incarnation], None)

    def left(self, *, died: bool, settled: int) -> None:
        """The group has gone, after ``settled`` steps."""
        for name, step in self._last_used.items():
            story = self._stories[name]
            if step > settled and story.open:
                if story.progressed:
                    story.deaths = 0
                elif died:
                    story.deaths += 1

    def _check_grants(self, plan: Plan, settled: int) -> None:
        cached = Counter({a.slot: a.num_cached for a in plan.admissions})
        for offload in plan.offloads:
            cached[offload.slot] -= BLOCK_SIZE * len(offload.frames)
            del self.tables[offload.slot][: len(offload.frames)]
        names = {a.slot: a.request_id for a in plan.admissions}
        for grant in plan.grants:
            table, fetched = self.tables[grant.slot], self._tiers.fetched(plan, grant.slot)
            for block in grant.blocks:
                if len(table) < blocks_for(cached[grant.slot]) and block not in fetched:
                    writer = None
                    if self._block_written.get(block, 0) > settled:
                        writer, reader = self._worker.writers[block], names[grant.slot]
                        assert family(writer) == family(reader), "a prefix hit on a block still written"
                    self._tiers.check_share(block, writer, settled)
                else:
                    self._tiers.fill(block)
                    assert self._block_used.get(block, 0) <= settled, "a block whose step has not settled"
                    assert all(block not in other for other in self.tables.values()), "a block in use"
                table.append(block)

    def _check_ended(self, story: Story, ended: Ended, now: float) -> None:
        assert not story.announced
        assert not story.settled_final
        story.announced = True
        if ended.reason is Finish.CANCELLED:
            assert story.cancelled
        elif ended.reason is Finish.ERROR:
            assert story.homeless or has_failed(self._stories, ended.request_id)
        else:
            assert ended.reason is Finish.DEADLINE
            assert story.deadline is not None
            assert story.deadline <= now

    def _note_uses(self, plan: Plan) -> None:
        self._worker.run(plan)
        self._tiers.note_chunks(plan, {slot: row.request_id for slot, row in self._worker.slots.items()})
        copied = [*(spill.blocks for spill in plan.spills), *(fetch.blocks for fetch in plan.fetches)]
        for blocks in copied:
            self._block_used |= dict.fromkeys(blocks, plan.step)
        for block in self._worker.reached[plan.step]:
            self._block_used[block] = plan.step
        for block in self._worker.written[plan.step]:
            self._block_written[block] = plan.step
            assert sum(block in table for table in self.tables.values()) <= 1, "a shared block is written"
        reached = {chunk.slot for chunk in plan.chunks} | {fetch.slot for fetch in plan.fetches}
        reached |= {span.slot for span in plan.spans}
        for slot, row in self._worker.slots.items():
            if row.decoding or slot in reached:
                self._slot_used[slot] = self._last_used[row.request_id] = plan.step
