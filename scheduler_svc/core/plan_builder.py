"""The plan builder: the decisions of one plan.

The core of a group calls it, once for each plan.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from operator import attrgetter

from albireo.contract.plan import Admission, Ended, Grant, Plan, blocks_for
from scheduler_svc.core.block_supply import BlockSupply
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits, spare_blocks
from scheduler_svc.core.plan_draft import PlanDraft
from scheduler_svc.core.prefix import Prefix
from scheduler_svc.core.request import Occupancy, Phase, Request
from scheduler_svc.core.stream_builder import StreamBuilder
from scheduler_svc.core.stream_rules import StreamRules
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

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        rules: StreamRules,
        draft: PlanDraft,
        tiers: TierBuilder | None,
        streams: StreamBuilder | None,
    ) -> None:
        """``tiers``, ``streams``: None where the group has none. ``draft`` is filled, also by ``streams``."""
        self._ledger = ledger
        self._limits = limits
        self._rules = rules
        self._draft = draft
        self._tiers = tiers
        self._streams = streams
        self._supply: BlockSupply  # who leaves its slot, which blocks are promised: once ends are booked
        self._booked = False

    def build(self, epoch: int) -> Plan | None:
        """The plan, booked in the ledger; None if there is nothing that is worth a step.

        A release alone is worth one only while nothing is in flight. Otherwise it waits for the next plan
        that has more to say, so that it does not use up the window when a request arrives.
        """
        ledger = self._ledger
        self._end()
        self._supply = supply = BlockSupply(ledger)
        if ledger.tiers.unknown:  # an empty step brings a part of the group's report of them
            return None if ledger.in_flight else self._publish(epoch)
        self._serve(self._release())
        draft, streams = self._draft, self._streams
        others = streams is not None and streams.decided
        decided = supply.rows or draft.chunks or draft.paused or draft.ended or others
        if decided or (supply.releasing and not ledger.in_flight):
            self._book()
        self._admit()
        if streams is not None:
            if not self._booked and streams.copies():
                self._book()
            self._booked = streams.finish(others_run=self._others_run) or self._booked
        if self._tiers is not None and (self._booked or not ledger.in_flight):
            free = ledger.pool.num_free // (FREE_SHARE if self._others_run else 1)
            self._booked = self._tiers.write_behind(free) or self._booked
        return self._publish(epoch) if self._booked else None

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
        self._draft.ended = [Ended(request.name, request.ending) for request in ending]
        for ended in self._draft.ended:
            ledger.end(ended)
        for occupancy in occupancies:
            if occupancy is not None and occupancy.phase is not Phase.RELEASED:
                ledger.release(occupancy.slot)
                self._draft.released.append(occupancy.slot)

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
        prefilling = (*phases[Phase.PREFILLING].values(), *phases[Phase.STREAMED].values())
        paused = phases[Phase.PAUSED].values()
        # A row that waits for its block keeps its token of the budget: it never has to wait for both.
        self._draft.budget = self._limits.max_num_batched_tokens - supply.rows - len(paused)
        needy = [*needy, *paused]
        if (
            needy and supply.free >= len(needy) + self._rules.all_missing()
        ):  # there are enough for all, in any order
            supply.free -= len(needy)
            self._draft.granting = [(occupancy.slot, 1) for occupancy in needy]
            self._draft.resumed = [occupancy.slot for occupancy in paused]
            supply.rows += len(paused)
            needy.clear()
        late: list[Occupancy] = []
        for occupancy in sorted([*needy, *prefilling], key=attrgetter("incarnation")):
            if occupancy in supply.releasing:
                continue
            if self._streams is not None and self._rules.takes(occupancy):
                self._streams.serve(occupancy, supply)
            elif occupancy.phase is not Phase.PREFILLING:
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
        return self._supply.rows > 0 or bool(self._draft.chunks)

    def _serve_row(self, occupancy: Occupancy) -> None:
        if self._streams is not None:
            self._streams.relieve(self._supply)
        if self._supply.obtain(occupancy, 1):
            self._draft.granting.append((occupancy.slot, 1))
            if occupancy.phase is Phase.PAUSED:
                self._draft.resumed.append(occupancy.slot)
                self._supply.rows += 1
            return
        if self._streams is None or not self._streams.shrink(occupancy, self._supply):
            if occupancy.phase is Phase.PAUSED:
                return
            self._draft.paused.append(occupancy.slot)
        if occupancy.phase is Phase.DECODING:
            self._supply.rows -= 1

    def _serve_chunk(self, occupancy: Occupancy) -> None:
        count = self._chunk_size(occupancy)
        if count > 0:
            missing = blocks_for(occupancy.scheduled + count) - len(occupancy.blocks)
            if missing > 0:
                if not self._supply.obtain(occupancy, missing):
                    return
                self._draft.granting.append((occupancy.slot, missing))
            self._draft.add_chunk(occupancy, count)

    def _chunk_size(self, occupancy: Occupancy) -> int:
        return min(
            self._limits.prefill_chunk, self._draft.budget, len(occupancy.tokens) - occupancy.scheduled
        )

    def _book(self) -> None:
        """Writes the decisions about requests that hold slots to the ledger, and names the blocks."""
        ledger = self._ledger
        self._booked = True
        for occupancy in self._supply.releasing:
            ledger.release(occupancy.slot)
            self._draft.released.append(occupancy.slot)
        for slot in self._draft.paused:
            ledger.pause(slot)
        for slot in self._draft.resumed:
            ledger.resume(slot)
        if self._streams is not None:
            self._streams.book()
        granted = ledger.pool.next_free(sum(count for _, count in self._draft.granting))
        if self._tiers is not None:
            self._tiers.move_out(granted)
        blocks = iter(granted)
        self._draft.grants = [
            Grant(slot, tuple(islice(blocks, count))) for slot, count in self._draft.granting
        ]
        ledger.grant(self._draft.grants)
        for chunk in self._draft.chunks:
            ledger.schedule_chunk(chunk)

    def _admit(self) -> None:
        """Waiting requests take free slots while the budgets last, strictly in their order.

        One is admitted if there are blocks for all its tokens in addition to what requests in prefill still
        need, and a few more, so that the running rows do not preempt it at once. If nothing runs, it needs no
        more than its own.
        """
        ledger, supply, rules = self._ledger, self._supply, self._rules
        if self._draft.budget <= 0 or supply.scarce or not ledger.free_slots:
            return
        missing = rules.all_missing()
        tiers = self._tiers.worthwhile if self._tiers is not None else ()

        def is_open() -> bool:
            free = min(len(ledger.free_slots), self._limits.max_num_seqs - supply.running)
            return self._limits.open_to_all(free, self._draft.prefill)

        for request in ledger.requests.candidates(ledger.pending, is_open):
            if (
                self._draft.budget <= 0
                or not ledger.free_slots
                or supply.running >= self._limits.max_num_seqs
            ):
                return
            spare = ledger.pool.num_free - missing - (spare_blocks(ledger.shape) if supply.running else 0)
            if spare <= 0:
                return
            prefix = rules.find_prefix(request, tiers)
            if spare < rules.claim(request, prefix).blocks or not rules.has_frames(request):
                return
            if not self._booked:
                self._book()
            occupancy = self._admit_one(request, prefix.tokens)
            if self._streams is not None and rules.takes(occupancy):
                self._streams.admit(occupancy, prefix.streamed)
            else:
                self._begin(occupancy, prefix)
            missing += rules.missing(occupancy)
            supply.running += 1

    def _admit_one(self, request: Request, num_cached: int) -> Occupancy:
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
            num_cached=num_cached,
            sampling=sampling,
            traceparent=request.submission.traceparent,
        )
        self._draft.admissions.append(admission)
        return ledger.admit(admission)

    def _begin(self, occupancy: Occupancy, prefix: Prefix) -> None:
        """A request has just been admitted that has a prefix: the blocks of its first chunk, and these."""
        ledger = self._ledger
        count, fetched = self._chunk_size(occupancy), len(prefix.frames)
        fresh = blocks_for(prefix.tokens + count) - len(prefix.blocks)
        blocks = ledger.pool.next_free(fresh, excluding=prefix.blocks)
        if self._tiers is not None:
            self._tiers.fetch(occupancy, prefix, blocks[:fetched])
            if self._others_run and self._tiers.is_late(occupancy):
                count, blocks = 0, blocks[:fetched]
            self._tiers.move_out(blocks)
        grant = Grant(occupancy.slot, (*prefix.table(blocks[:fetched]), *blocks[fetched:]))
        ledger.grant([grant])
        self._draft.grants.append(grant)
        if count:
            ledger.schedule_chunk(self._draft.add_chunk(occupancy, count))

    def _publish(self, epoch: int) -> Plan:
        ledger = self._ledger
        ledger.publish_step()
        return self._draft.plan(
            epoch,
            ledger.step,
            spills=self._tiers.spills if self._tiers is not None else (),
            fetches=tuple(self._tiers.fetches) if self._tiers is not None else (),
            num_decodes=self._supply.rows,
            digest=ledger.digest() if ledger.step % self._limits.digest_every == 0 else None,
        )
