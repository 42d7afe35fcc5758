"""The plan builder: the decisions of one plan.

The core of a group calls it, once for each plan.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from operator import attrgetter

from albireo.contract.plan import (
    Admission,
    Chunk,
    Ended,
    Grant,
    Plan,
    blocks_for,
)
from scheduler_svc.core.block_supply import BlockSupply
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits, spare_blocks
from scheduler_svc.core.prefix import Prefix, claim, find_prefix
from scheduler_svc.core.request import Occupancy, Phase, Request
from scheduler_svc.core.tier_builder import TierBuilder

FREE_SHARE = 4
"""One in so many free blocks can be withheld by copies to tiers while requests run that may need them."""


class PlanBuilder:
    """Decides what the next step of a group runs. Made by its core for one plan.

    First it decides about the requests that hold slots, and writes only to itself. If there is a plan to
    publish, it books these decisions in the ledger, by the methods that a follower's ledger applies the plan
    with. Then it admits waiting requests one by one, each booked before the next is looked at. If there is no
    plan to publish, the ledger is as it was.

    Rows that need nothing cost nothing here. Where blocks are short, rows that need one, and chunks, are
    served in the order of admission, so a request that is preempted comes after all that were served.
    """

    def __init__(self, ledger: Ledger, limits: Limits, tiers: TierBuilder | None, epoch: int) -> None:
        """``tiers``: None where the group has none."""
        self._ledger = ledger
        self._tiers = tiers
        self._limits = limits
        self._epoch = epoch
        # What the plan says:
        self._ended: list[Ended] = []
        self._released: list[int] = []
        self._paused: list[int] = []
        self._resumed: list[int] = []
        self._admissions: list[Admission] = []
        self._grants: list[Grant] = []
        self._chunks: list[Chunk] = []
        # What is decided and not booked:
        self._supply: BlockSupply  # who leaves its slot, which blocks are promised: once ends are booked
        self._granting: list[tuple[int, int]] = []  # slot, number of blocks
        self._booked = False
        # What the decisions add up to:
        self._budget = 0  # tokens left for chunks
        self._prefill = 0  # tokens of these

    def build(self) -> Plan | None:
        """The plan, booked in the ledger; None if there is nothing that is worth a step.

        A release alone is worth one only while nothing is in flight. Otherwise it waits for the next plan
        that has more to say, so that it does not use up the window when a request arrives.
        """
        ledger = self._ledger
        self._end()
        self._supply = supply = BlockSupply(ledger)
        if ledger.tiers.unknown:  # an empty step brings a part of the group's report of them
            return None if ledger.in_flight else self._publish()
        self._serve(self._release())
        release_now = supply.releasing and not ledger.in_flight
        if supply.rows or self._chunks or self._paused or self._ended or release_now:
            self._book()
        self._admit()
        if self._tiers is not None and (self._booked or not ledger.in_flight):
            free = ledger.pool.num_free // (FREE_SHARE if self._others_run else 1)
            self._booked = self._tiers.write_behind(free) or self._booked
        return self._publish() if self._booked else None

    def next_time(self) -> float | None:
        """When there may be a plan that is worth a step, after there was none, if nothing happens before."""
        return self._tiers.next_write() if self._tiers is not None and not self._ledger.in_flight else None

    def _end(self) -> None:
        """Ends the group's requests whose end is decided. That is always worth a plan, so it is booked at
        once."""
        ledger = self._ledger
        ending = ledger.pending.ending
        if not ending:
            return
        occupancies = [request.occupancy for request in ending]
        self._ended = [Ended(request.name, request.ending) for request in ending]
        for ended in self._ended:
            ledger.end(ended)
        for occupancy in occupancies:
            if occupancy is not None and occupancy.phase is not Phase.RELEASED:
                ledger.release(occupancy.slot)
                self._released.append(occupancy.slot)

    def _release(self) -> list[Occupancy]:
        """Finished requests leave their slots, and so do those whose last row by length is scheduled.

        Returns the decoding ones that need a block.
        """
        needy = []
        releasing = self._supply.releasing
        releasing.update(dict.fromkeys(self._ledger.phases[Phase.FINISHED].values()))
        for occupancy in self._ledger.due:
            if occupancy.at_length_end and occupancy.phase is Phase.DECODING:
                self._supply.release(occupancy)
            elif occupancy.phase is Phase.DECODING:  # else it has finished since
                needy.append(occupancy)
        return needy

    def _serve(self, needy: list[Occupancy]) -> None:
        """Blocks for the rows that need one, chunks for those that prefill."""
        phases, supply = self._ledger.phases, self._supply
        prefilling = phases[Phase.PREFILLING].values()
        paused = phases[Phase.PAUSED].values()
        # A row that waits for its block keeps its token of the budget: it never has to wait for both.
        self._budget = self._limits.max_num_batched_tokens - supply.rows - len(paused)
        needy = [*needy, *paused]
        if needy and supply.free >= len(needy) + self._missing():  # there are enough for all, in any order
            supply.free -= len(needy)
            self._granting = [(occupancy.slot, 1) for occupancy in needy]
            self._resumed = [occupancy.slot for occupancy in paused]
            supply.rows += len(paused)
            needy.clear()
        late: list[Occupancy] = []
        for occupancy in sorted([*needy, *prefilling], key=attrgetter("incarnation")):
            if occupancy in supply.releasing:
                continue
            if occupancy.phase is not Phase.PREFILLING:
                self._serve_row(occupancy)
            elif self._tiers is not None and self._tiers.is_late(occupancy):
                late.append(occupancy)
            else:
                self._serve_chunk(occupancy)
        if late and not self._others_run:
            self._serve_chunk(late[0])

    @property
    def _others_run(self) -> bool:
        """Whether there is a row that would wait with one that waits for a fetch."""
        return self._supply.rows > 0 or bool(self._chunks)

    def _missing(self) -> int:
        """Blocks that the requests in prefill still need."""
        prefilling = self._ledger.phases[Phase.PREFILLING].values()
        return sum(blocks_for(occupancy.prefill) - len(occupancy.blocks) for occupancy in prefilling)

    def _serve_row(self, occupancy: Occupancy) -> None:
        if self._supply.obtain(occupancy, 1):
            self._granting.append((occupancy.slot, 1))
            if occupancy.phase is Phase.PAUSED:
                self._resumed.append(occupancy.slot)
                self._supply.rows += 1
        elif occupancy.phase is Phase.DECODING:
            self._paused.append(occupancy.slot)
            self._supply.rows -= 1

    def _serve_chunk(self, occupancy: Occupancy) -> None:
        count = self._chunk_size(occupancy)
        if count > 0:
            missing = blocks_for(occupancy.scheduled + count) - len(occupancy.blocks)
            if missing > 0:
                if not self._supply.obtain(occupancy, missing):
                    return
                self._granting.append((occupancy.slot, missing))
            self._add_chunk(occupancy, count)

    def _chunk_size(self, occupancy: Occupancy) -> int:
        return min(self._limits.prefill_chunk, self._budget, len(occupancy.tokens) - occupancy.scheduled)

    def _add_chunk(self, occupancy: Occupancy, count: int) -> Chunk:
        chunk = Chunk(occupancy.slot, occupancy.scheduled, count)
        self._chunks.append(chunk)
        self._budget -= count
        self._prefill += count
        return chunk

    def _book(self) -> None:
        """Writes the decisions about requests that hold slots to the ledger, and names the blocks."""
        ledger = self._ledger
        self._booked = True
        for occupancy in self._supply.releasing:
            ledger.release(occupancy.slot)
            self._released.append(occupancy.slot)
        for slot in self._paused:
            ledger.pause(slot)
        for slot in self._resumed:
            ledger.resume(slot)
        granted = ledger.pool.next_free(sum(count for _, count in self._granting))
        if self._tiers is not None:
            self._tiers.move_out(granted)
        blocks = iter(granted)
        self._grants = [Grant(slot, tuple(islice(blocks, count))) for slot, count in self._granting]
        ledger.grant(self._grants)
        for chunk in self._chunks:
            ledger.schedule_chunk(chunk)

    def _admit(self) -> None:
        """Waiting requests take free slots while the budgets last, strictly in their order.

        One is admitted if there are blocks for all its tokens in addition to what requests in prefill still
        need, and a few more, so that the running rows do not preempt it at once. If nothing runs, it needs no
        more than its own.
        """
        ledger, supply = self._ledger, self._supply
        if self._budget <= 0 or supply.scarce or not ledger.free_slots:
            return
        missing = self._missing()
        tiers = self._tiers.worthwhile if self._tiers is not None else ()

        def is_open() -> bool:
            free = min(len(ledger.free_slots), self._limits.max_num_seqs - supply.running)
            return self._limits.open_to_all(free, self._prefill)

        for request in ledger.requests.candidates(ledger.pending, is_open):
            if self._budget <= 0 or not ledger.free_slots or supply.running >= self._limits.max_num_seqs:
                return
            reserve = spare_blocks(ledger.shape) if supply.running else 0
            spare = ledger.pool.num_free - missing - reserve
            if spare <= 0:
                return
            prefix = find_prefix(ledger, request, tiers)
            if spare < claim(ledger, request, prefix).blocks:
                return
            if not self._booked:
                self._book()
            missing += blocks_for(len(request.tokens)) - len(self._admit_one(request, prefix).blocks)
            supply.running += 1

    def _admit_one(self, request: Request, prefix: Prefix) -> Occupancy:
        ledger = self._ledger
        num_prompt, sampling = len(request.submission.prompt), request.submission.sampling
        if sampling.prompt_logprobs >= 0 and not request.needs_prompt_logprobs:
            sampling = replace(sampling, prompt_logprobs=-1)
        admission = Admission(
            slot=ledger.free_slots.lowest,
            incarnation=ledger.incarnation + 1,
            request_id=request.name,
            tokens=request.known,
            num_outputs=len(request.tokens) - num_prompt,
            num_cached=prefix.tokens,
            sampling=sampling,
            traceparent=request.submission.traceparent,
        )
        occupancy = ledger.admit(admission)
        self._admissions.append(admission)
        count, fetched = self._chunk_size(occupancy), len(prefix.frames)
        fresh = blocks_for(prefix.tokens + count) - len(prefix.blocks)
        blocks = ledger.pool.next_free(fresh, excluding=prefix.blocks)
        if self._tiers is not None:
            self._tiers.fetch(occupancy, prefix, blocks[:fetched])
            if self._others_run and self._tiers.is_late(occupancy):
                count, blocks = 0, blocks[:fetched]
            self._tiers.move_out(blocks)
        grant = Grant(admission.slot, (*prefix.table(blocks[:fetched]), *blocks[fetched:]))
        ledger.grant([grant])
        self._grants.append(grant)
        if count:
            ledger.schedule_chunk(self._add_chunk(occupancy, count))
        return occupancy

    def _publish(self) -> Plan:
        ledger = self._ledger
        ledger.publish_step()
        return Plan(
            epoch=self._epoch,
            step=ledger.step,
            released=tuple(self._released),
            paused=tuple(self._paused),
            resumed=tuple(self._resumed),
            spills=self._tiers.spills if self._tiers is not None else (),
            admissions=tuple(self._admissions),
            fetches=tuple(self._tiers.fetches) if self._tiers is not None else (),
            grants=tuple(self._grants),
            chunks=tuple(self._chunks),
            ended=tuple(self._ended),
            num_decodes=self._supply.rows,
            digest=ledger.digest() if ledger.step % self._limits.digest_every == 0 else None,
        )
