"""One plan in the making."""

from __future__ import annotations

from dataclasses import replace

from albireo.contract.plan import (
    BLOCK_SIZE,
    Admission,
    Chunk,
    Ended,
    Grant,
    Plan,
    blocks_for,
    table_digest,
)
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.request import Phase, Request, Stay
from scheduler_svc.core.stats import Counters


class Draft:
    """Decides what the next step runs and books it in the ledger as it goes. Lives for one plan.

    The core calls release, serve, admit and publish once each, in that order.

    Rows that need nothing are not looked at beyond one comparison. Those that need a block, and chunks,
    are served in queue order, so whoever is preempted came later and has not been served yet.
    """

    def __init__(self, ledger: Ledger, limits: Limits, counters: Counters, epoch: int) -> None:
        self._ledger = ledger
        self._limits = limits
        self._counters = counters
        self._epoch = epoch
        self._step = ledger.step + 1
        self._prefilling = ledger.phases[Phase.PREFILLING]
        self._decoding = ledger.phases[Phase.DECODING]
        self._parked = ledger.phases[Phase.PAUSED]
        self._budget = 0  # tokens left for chunks
        self._claimed = 0  # free or incoming blocks promised to those that wait in this plan
        self._scarce = False  # somebody had to wait for a block, or to go for one
        self._victims: list[Stay] | None = None  # last to come at the end; built on the first shortage
        self._needy: list[Stay] = []
        self._joining: list[Stay] = []  # sample their first token in this step, decode from the next
        self._flown: list[tuple[Stay, int]] = []
        self._paused: list[int] = []
        self._resumed: list[int] = []
        self._admissions: list[Admission] = []
        self._grants: list[Grant] = []
        self._chunks: list[Chunk] = []

    def release(self) -> None:
        """Finished requests leave their slots, and so do those whose last row by length is scheduled."""
        ledger = self._ledger
        for stay in list(ledger.phases[Phase.FINISHED].values()):
            ledger.leave(stay)
        for stay in [stay for stay in self._decoding.values() if stay.scheduled >= stay.row_limit]:
            if stay.at_length_end:
                ledger.leave(stay)
            else:
                self._needy.append(stay)

    def serve(self) -> None:
        """Blocks for the rows that need one, chunks for those that prefill; in queue order."""
        # A row that waits for its block keeps its token: it never has to wait for both.
        self._budget = self._limits.max_num_batched_tokens - len(self._decoding) - len(self._parked)
        needy = [*self._needy, *self._parked.values(), *self._prefilling.values()]
        needy.sort(key=lambda stay: stay.request.order)
        for stay in needy:
            if stay.phase is Phase.PREFILLING:
                self._serve_chunk(stay)
            elif stay.phase is not Phase.LEFT:
                self._serve_row(stay)

    def admit(self) -> None:
        """Waiting requests take free slots while the budgets last, strictly in queue order.

        One comes in if blocks for all its tokens are there beside what requests in prefill still need,
        and a few more so that the rows now running do not throw it out again at once. With nothing
        running it needs no more than fits.
        """
        ledger, limits = self._ledger, self._limits
        promised = sum(blocks_for(len(s.tokens)) - len(s.blocks) for s in self._prefilling.values())
        running = ledger.num_running
        while (
            self._budget > 0
            and not self._scarce
            and ledger.free_slots
            and running < limits.max_num_seqs
            and (first := ledger.waiting.peek())
        ):
            request = first[1]
            total = blocks_for(len(request.tokens))
            reserve = max(1, ledger.shape.num_blocks // 100) if running else 0
            spare = ledger.pool.num_free - promised - reserve
            if spare <= 0:
                return
            prefix = self._prefix(request)
            revived = sum(1 for block in prefix if not ledger.pool.owners(block))
            if spare < total - len(prefix) + revived:
                return
            ledger.waiting.remove(request)
            promised += total - len(self._admit(request, prefix).blocks)
            running += 1

    def publish(self, ended: tuple[Ended, ...]) -> Plan | None:
        """Books the decoding rows and closes the plan. None if there is nothing worth a step.

        A release alone is worth one only while nothing is in flight: otherwise it waits for company, so
        that it does not keep an arrival out of the window.
        """
        ledger, step = self._ledger, self._step
        num_decodes = len(self._decoding)
        carries = num_decodes or self._chunks or ended or self._paused
        if not carries and (ledger.flights or not ledger.released):
            return None
        for stay in self._decoding.values():
            stay.scheduled += 1
            stay.last_step = step
        for stay in self._joining:
            ledger.move(stay, Phase.DECODING)
            ledger.held.free(stay.request)
        released = tuple(ledger.released)
        ledger.released.clear()
        ledger.launch(self._flown)
        return Plan(
            epoch=self._epoch,
            step=step,
            released=released,
            paused=tuple(self._paused),
            resumed=tuple(self._resumed),
            admissions=tuple(self._admissions),
            grants=tuple(self._grants),
            chunks=tuple(self._chunks),
            ended=ended,
            num_decodes=num_decodes,
            digest=self._digest() if step % self._limits.digest_every == 0 else None,
        )

    def _serve_row(self, stay: Stay) -> None:
        if self._obtain(stay, 1):
            self._grants.append(Grant(stay.slot, tuple(self._ledger.grant(stay, 1))))
            if stay.phase is Phase.PAUSED:
                self._resumed.append(stay.slot)
                self._ledger.move(stay, Phase.DECODING)
        elif stay.phase is Phase.DECODING:
            self._paused.append(stay.slot)
            self._ledger.move(stay, Phase.PAUSED)

    def _serve_chunk(self, stay: Stay) -> None:
        count = self._chunk_size(stay)
        if count > 0:
            missing = blocks_for(stay.scheduled + count) - len(stay.blocks)
            if missing > 0:
                if not self._obtain(stay, missing):
                    return
                self._grants.append(Grant(stay.slot, tuple(self._ledger.grant(stay, missing))))
            self._book_chunk(stay, count)

    def _chunk_size(self, stay: Stay) -> int:
        return min(self._limits.prefill_chunk, self._budget, len(stay.tokens) - stay.scheduled)

    def _book_chunk(self, stay: Stay, count: int) -> None:
        self._chunks.append(Chunk(stay.slot, stay.scheduled, count))
        self._budget -= count
        stay.scheduled += count
        stay.last_step = self._step
        self._flown.append((stay, stay.scheduled))
        if stay.scheduled == len(stay.tokens):
            self._joining.append(stay)

    def _obtain(self, stay: Stay, count: int) -> bool:
        """Whether ``count`` blocks are free for the stay, if need be after preempting later ones.

        If not it waits in place, its claim noted: either enough are fenced and come in by themselves, or
        nobody came later, so that there is nothing to throw away but its own work.
        """
        pool = self._ledger.pool
        while pool.num_free - self._claimed < count:
            self._scarce = True
            expected = pool.num_free + self._ledger.incoming_blocks() - self._claimed
            if expected >= count or not self._preempt_after(stay):
                self._claimed += count
                return False
        return True

    def _preempt_after(self, stay: Stay) -> bool:
        """Preempts the one that came last, if it came later than ``stay``."""
        if self._victims is None:
            self._victims = sorted(self._ledger.stays(), key=lambda victim: victim.request.order)
        victim = self._victims.pop()
        if victim.request.order <= stay.request.order:
            self._victims.append(victim)
            return False
        self._counters.preemptions += 1
        self._ledger.leave(victim)
        return True

    def _prefix(self, request: Request) -> list[int]:
        """Blocks that hold what the tokens begin with, short of the last token: that one is computed."""
        if request.tells_prompt:
            return []
        return max(self._shared(request), self._cached(request), key=len)

    def _shared(self, request: Request) -> list[int]:
        """Full blocks of the prompt that another branch has, once the plans before this one have run."""
        full = min(len(request.submission.prompt), len(request.tokens) - 1) // BLOCK_SIZE
        for branch in request.family:
            stay = branch.stay
            # One that has left still owns its blocks: the last step that touches them has not settled.
            if stay and stay.phase is not Phase.PREFILLING and stay.scheduled >= full * BLOCK_SIZE:
                return stay.blocks[:full]
        return []

    def _cached(self, request: Request) -> list[int]:
        cached: list[int] = []
        if self._ledger.prefix_cache:
            for index in range((len(request.tokens) - 1) // BLOCK_SIZE):
                block = self._ledger.pool.find(request.key(index))
                if block is None:
                    break
                cached.append(block)
        return cached

    def _admit(self, request: Request, prefix: list[int]) -> Stay:
        stay = self._ledger.enter(request, prefix)
        num_prompt, sampling = len(request.submission.prompt), request.submission.sampling
        if sampling.prompt_logprobs >= 0 and not request.tells_prompt:
            sampling = replace(sampling, prompt_logprobs=-1)
        self._admissions.append(
            Admission(
                slot=stay.slot,
                incarnation=stay.incarnation,
                request_id=request.submission.request_id,
                tokens=tuple(request.tokens),
                num_outputs=len(request.tokens) - num_prompt,
                num_cached=stay.scheduled,
                sampling=sampling,
                traceparent=request.submission.traceparent,
            )
        )
        if not request.admitted:
            request.admitted = True
            self._counters.departures += 1
            self._counters.prompt_tokens += len(request.tokens)
            self._counters.prefix_hit_tokens += stay.scheduled
        count = self._chunk_size(stay)
        self._ledger.grant(stay, blocks_for(stay.scheduled + count) - len(stay.blocks))
        self._grants.append(Grant(stay.slot, tuple(stay.blocks)))
        self._book_chunk(stay, count)
        return stay

    def _digest(self) -> int:
        stays = sorted(self._ledger.stays(), key=lambda stay: stay.slot)
        return table_digest(
            (s.slot, s.incarnation, s.scheduled, len(s.blocks), s.blocks[-1] if s.blocks else -1)
            for s in stays
        )
