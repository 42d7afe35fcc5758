"""The plan builder: the decisions of one plan.

The core of a group calls it, once for each plan.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from operator import attrgetter

from albireo.contract.plan import (
    BLOCK_SIZE,
    Admission,
    Chunk,
    Ended,
    Grant,
    Plan,
    blocks_for,
)
from scheduler_svc.core.block_forecast import BlockForecast
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits, spare_blocks
from scheduler_svc.core.prefix import claim, prefix_blocks
from scheduler_svc.core.request import Occupancy, Phase, Request


class PlanBuilder:
    """Decides what the next step of a group runs. Made by its core for one plan.

    First it decides about the requests that hold slots, and writes only to itself. If there is a plan to
    publish, it books these decisions in the ledger, by the methods that a follower's ledger applies the plan
    with. Then it admits waiting requests one by one, each booked before the next is looked at. If there is no
    plan to publish, the ledger is as it was.

    Rows that need nothing cost nothing here. Where blocks are short, rows that need one, and chunks, are
    served in the order of admission, so a request that is preempted comes after all that were served.
    """

    def __init__(self, ledger: Ledger, limits: Limits, epoch: int) -> None:
        self._ledger = ledger
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
        self._releasing: dict[Occupancy, None] = {}  # in order
        self._granting: list[tuple[int, int]] = []  # slot, number of blocks
        self._booked = False
        # What the decisions add up to:
        self._rows = 0  # that decode in this step
        self._running = 0  # requests that hold a slot and go on
        self._budget = 0  # tokens left for chunks
        self._prefill = 0  # tokens of these
        self._free = 0  # blocks that are free and promised to no request, without those in the forecast
        self._scarce = False  # a request waits for a block, or was preempted
        self._forecast: BlockForecast | None = None  # made at the first shortage
        self._victims: list[Occupancy] | None = None  # that may be preempted, in order of admission

    def build(self) -> Plan | None:
        """The plan, booked in the ledger; None if there is nothing that is worth a step.

        A release alone is worth one only while nothing is in flight. Otherwise it waits for the next plan
        that has more to say, so that it does not use up the window when a request arrives.
        """
        self._end()
        self._rows = len(self._ledger.phases[Phase.DECODING])
        self._running = self._ledger.num_running
        self._free = self._ledger.pool.num_free
        self._serve(self._release())
        release_now = self._releasing and not self._ledger.in_flight
        if self._rows or self._chunks or self._paused or self._ended or release_now:
            self._book()
        self._admit()
        return self._publish() if self._booked else None

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
        self._releasing.update(dict.fromkeys(self._ledger.phases[Phase.FINISHED].values()))
        for occupancy in self._ledger.due:
            if occupancy.at_length_end and occupancy.phase is Phase.DECODING:
                self._release_running(occupancy)
            elif occupancy.phase is Phase.DECODING:  # else it has finished since
                needy.append(occupancy)
        return needy

    def _release_running(self, occupancy: Occupancy) -> None:
        self._releasing[occupancy] = None
        self._running -= 1
        if occupancy.phase is Phase.DECODING:
            self._rows -= 1

    def _serve(self, needy: list[Occupancy]) -> None:
        """Blocks for the rows that need one, chunks for those that prefill."""
        phases = self._ledger.phases
        prefilling = phases[Phase.PREFILLING].values()
        paused = phases[Phase.PAUSED].values()
        # A row that waits for its block keeps its token of the budget: it never has to wait for both.
        self._budget = self._limits.max_num_batched_tokens - self._rows - len(paused)
        needy = [*needy, *paused]
        if needy and self._free >= len(needy) + self._missing():  # there are enough for all, in any order
            self._free -= len(needy)
            self._granting = [(occupancy.slot, 1) for occupancy in needy]
            self._resumed = [occupancy.slot for occupancy in paused]
            self._rows += len(paused)
            needy.clear()
        for occupancy in sorted([*needy, *prefilling], key=attrgetter("incarnation")):
            if occupancy in self._releasing:
                continue
            serve = self._serve_chunk if occupancy.phase is Phase.PREFILLING else self._serve_row
            serve(occupancy)

    def _missing(self) -> int:
        """Blocks that the requests in prefill still need."""
        prefilling = self._ledger.phases[Phase.PREFILLING].values()
        return sum(blocks_for(occupancy.prefill) - len(occupancy.blocks) for occupancy in prefilling)

    def _serve_row(self, occupancy: Occupancy) -> None:
        if self._obtain(occupancy, 1):
            self._granting.append((occupancy.slot, 1))
            if occupancy.phase is Phase.PAUSED:
                self._resumed.append(occupancy.slot)
                self._rows += 1
        elif occupancy.phase is Phase.DECODING:
            self._paused.append(occupancy.slot)
            self._rows -= 1

    def _serve_chunk(self, occupancy: Occupancy) -> None:
        count = self._chunk_size(occupancy)
        if count > 0:
            missing = blocks_for(occupancy.scheduled + count) - len(occupancy.blocks)
            if missing > 0:
                if not self._obtain(occupancy, missing):
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

    def _obtain(self, occupancy: Occupancy, count: int) -> bool:
        """Promises ``count`` blocks to an occupancy. True if they are free when the plan is booked; otherwise
        it waits for them in place."""
        found = self._free >= count or self._make_free(occupancy, count)
        self._free -= count
        return found

    def _make_free(self, occupancy: Occupancy, count: int) -> bool:
        """Preempts requests that were admitted later until ``count`` blocks are free.

        False if that is not useful, since enough blocks come free when steps in flight settle, or not
        possible, since none was admitted later: only the occupancy's own work could be thrown away.
        """
        if self._forecast is None:
            self._forecast = BlockForecast(self._ledger, self._releasing)
        forecast = self._forecast
        while self._free + forecast.now < count:
            self._scarce = True
            coming = self._free + forecast.now + forecast.later
            if coming >= count or not self._preempt_after(occupancy, forecast):
                return False
        return True

    def _preempt_after(self, occupancy: Occupancy, forecast: BlockForecast) -> bool:
        """Preempts the request that was admitted last, if that was after ``occupancy``."""
        if self._victims is None:
            running = (other for other in self._ledger.occupied.values() if other not in self._releasing)
            self._victims = sorted(running, key=attrgetter("incarnation"))
        victim = self._victims[-1]
        if victim.incarnation <= occupancy.incarnation:
            return False
        self._victims.pop()
        self._release_running(victim)
        forecast.add(victim)
        return True

    def _book(self) -> None:
        """Writes the decisions about requests that hold slots to the ledger, and names the blocks."""
        ledger = self._ledger
        self._booked = True
        for occupancy in self._releasing:
            ledger.release(occupancy.slot)
            self._released.append(occupancy.slot)
        for slot in self._paused:
            ledger.pause(slot)
        for slot in self._resumed:
            ledger.resume(slot)
        blocks = iter(ledger.pool.next_free(sum(count for _, count in self._granting)))
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
        ledger = self._ledger
        if self._budget <= 0 or self._scarce or not ledger.free_slots:
            return
        missing = self._missing()

        def is_open() -> bool:
            free = min(len(ledger.free_slots), self._limits.max_num_seqs - self._running)
            return self._limits.open_to_all(free, self._prefill)

        for request in ledger.requests.candidates(ledger.pending, is_open):
            if self._budget <= 0 or not ledger.free_slots or self._running >= self._limits.max_num_seqs:
                return
            reserve = spare_blocks(ledger.shape) if self._running else 0
            spare = ledger.pool.num_free - missing - reserve
            if spare <= 0:
                return
            prefix = prefix_blocks(ledger, request)
            if spare < claim(ledger, request, prefix).blocks:
                return
            if not self._booked:
                self._book()
            missing += blocks_for(len(request.tokens)) - len(self._admit_one(request, prefix).blocks)
            self._running += 1

    def _admit_one(self, request: Request, prefix: list[int]) -> Occupancy:
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
            num_cached=len(prefix) * BLOCK_SIZE,
            sampling=sampling,
            traceparent=request.submission.traceparent,
        )
        occupancy = ledger.admit(admission)
        self._admissions.append(admission)
        count = self._chunk_size(occupancy)
        fresh = blocks_for(occupancy.scheduled + count) - len(prefix)
        grant = Grant(admission.slot, (*prefix, *ledger.pool.next_free(fresh, excluding=prefix)))
        ledger.grant([grant])
        self._grants.append(grant)
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
            admissions=tuple(self._admissions),
            grants=tuple(self._grants),
            chunks=tuple(self._chunks),
            ended=tuple(self._ended),
            num_decodes=self._rows,
            digest=ledger.digest() if ledger.step % self._limits.digest_every == 0 else None,
        )
