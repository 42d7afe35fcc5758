"""KV from tiers of many bandwidths, on a SIMULATED device: steps and runs against their ideal.

    python -m bench.kv_tiers.bandwidths [--device NAME] [--json]

The ideal is the longer of reading and computing: what a pipeline of infinitely thin layers takes.

- *step*: one conversation comes back to a group that does nothing else. Its step begins when the reading
  does, so the layers have to wait where reading takes longer.
- *run*: 64 conversations come back at once, after others have taken their blocks, to a group with 8 slots. It
  reads what the next steps need while it computes. Scheduler and rank 0 are the real ones, in virtual time.
  Where a tier is so slow that computing is cheaper, the scheduler computes.

The share that layers waited is of the step, or of the run. Nothing here was measured on a device: it shows
whether pipeline and plans lose time, not how fast hardware is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from albireo.contract.plan import BLOCK_SIZE, Admission, Chunk, Plan, SamplingParams, blocks_for
from albireo.contract.tiers import Fetch, Spill, TierShape
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from bench.paper.models import MODELS
from worker_svc.cost.device import STEADY, Device
from worker_svc.cost.interface import CostModel, HostCost
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.cost.work import StepWork
from worker_svc.runner.simulated_tiers import SimulatedTiers

MODEL, TP = "Qwen2.5-32B", 4
BANDWIDTHS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 64)
"""10^9 bytes per second of each rank, in each direction."""
CONVERSATIONS, SLOTS = 64, 8
PROMPT, OWN, OUTPUTS = 2000, 32, 16
"""Tokens: what is fetched of a conversation, what is new, and the answer."""
FRAMES = 2 * CONVERSATIONS * blocks_for(PROMPT)
APART_SECONDS, LATER_SECONDS = 0.5, 5.0
"""Between two conversations that begin, and until they come back."""


COLUMNS = ("GB/s", "fetched", "reading, ms", "computing, ms", "time, ms", "of the ideal", "layers waited")


@dataclass(frozen=True, slots=True)
class Row:
    """Of one bandwidth; durations in seconds."""

    gb_per_second: float
    fetched: float  # share of the cached tokens that were fetched, not computed
    reading: float  # of all fetches, one after the other
    computing: float  # of all layers and sampling, without waits
    seconds: float  # from the begin to the end
    waited: float  # by layers

    @property
    def over_ideal(self) -> float:
        return self.seconds / max(self.reading, self.computing)

    @property
    def share_waited(self) -> float:
        return self.waited / self.seconds


class SummedCost:
    """A cost model that adds up what it is asked for; a simulation asks once a step. See CostModel."""

    variation = STEADY

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self.name, self.tp = cost.name, cost.tp
        self.seconds = 0.0

    def forward_seconds(self, work: StepWork) -> float:
        found = self._cost.forward_seconds(work)
        self.seconds += found
        return found

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        found = self._cost.sampling_seconds(work, parallel=parallel)
        self.seconds += found
        return found

    def host(self, work: StepWork) -> HostCost:
        return self._cost.host(work)


def tier(cost: PhysicalCost, gb_per_second: float) -> DescribedTiers:
    """One tier of so many bytes a second in each direction, with frames for all."""
    size = round(cost.shape.kv_token_bytes * BLOCK_SIZE)
    seconds = size / (gb_per_second * 1e9)
    shape = TierShape("host", FRAMES, seconds, seconds)
    return DescribedTiers((shape,), cost.shape.config.num_layers, size)


def step(cost: PhysicalCost, gb_per_second: float) -> Row:
    """One step that reads a conversation and computes what is new in it."""
    below, count = tier(cost, gb_per_second), PROMPT // BLOCK_SIZE
    blocks = frames = tuple(range(count))
    keys = tuple(frame.to_bytes(16, "big") for frame in frames)
    tiers = SimulatedTiers(below)
    written = 0
    for frame in frames:  # one by one: only so much may wait to be written
        tiers.begin(Plan(1, 1, spills=(Spill(0, (frame,), (frame,), keys[frame : frame + 1]),)), written)
        written += round(below.shapes[0].write_block_seconds * 1e9)
    admission = Admission(0, 1, "r", (1,) * (PROMPT + OWN), 0, PROMPT, SamplingParams(1, 0))
    fetch, chunk = Fetch(0, 0, blocks, frames, keys), Chunk(0, PROMPT, OWN)
    plan = Plan(1, 2, admissions=(admission,), fetches=(fetch,), chunks=(chunk,))
    pairs = OWN * PROMPT + OWN * (OWN + 1) // 2
    computing = cost.forward_seconds(StepWork(prefill=OWN, prefill_pairs=pairs, greedy=1))
    end, report = tiers.run(tiers.begin(plan, written), written, round(computing * 1e9))
    if report is None or report.unfetched or not report.read:
        raise RuntimeError(f"the conversation was not fetched: {report}")
    (read,) = report.read
    seconds, waited = (end - written) / 1e9, report.kv_wait_ns / 1e9
    return Row(gb_per_second, 1.0, read.seconds, computing, seconds, waited)


def run(cost: PhysicalCost, gb_per_second: float, conversations: int = CONVERSATIONS) -> Row:
    """All conversations come back at once; the device has blocks for a quarter of them."""
    summed, below = SummedCost(cost), tier(cost, gb_per_second)
    at_return = APART_SECONDS * conversations + LATER_SECONDS
    begins = (*(APART_SECONDS * i for i in range(conversations)), *[at_return] * conversations)
    requests = [
        WorkloadRequest(at, PROMPT + OWN, OUTPUTS, f"conversation {i % conversations}", PROMPT)
        for i, at in enumerate(begins)
    ]
    before = 0.0

    def on_progress(done: int, total: int) -> None:
        nonlocal before
        if done == conversations:
            before = summed.seconds

    longest = PROMPT + OWN + OUTPUTS
    result = simulate(
        Workload("returns", tuple(requests)),
        summed,
        num_blocks=max(SLOTS + 1, conversations // 4) * blocks_for(longest),
        max_seqs=SLOTS,
        max_model_len=longest,
        tiers=below,
        gateway_seconds=0.0,
        on_progress=on_progress,
    )
    fetched = result.totals.fetched_tokens[0]
    reading = fetched / BLOCK_SIZE * below.shapes[0].read_block_seconds
    return Row(
        gb_per_second,
        fetched / (conversations * PROMPT),
        reading,
        summed.seconds - before,
        result.seconds - at_return,
        result.totals.kv_wait,
    )


def table(title: str, rows: Sequence[Row]) -> Table:
    """For the terminal; milliseconds."""
    view = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"SIMULATED: {title}")
    for name in COLUMNS:
        view.add_column(name, justify="right")
    for row in rows:
        view.add_row(
            f"{row.gb_per_second:g}",
            f"{row.fetched:.0%}",
            *(f"{1e3 * seconds:.1f}" for seconds in (row.reading, row.computing, row.seconds)),
            f"{row.over_ideal:.3f}",
            f"{row.share_waited:.2%}",
        )
    return view


def main() -> None:
    """Simulates and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.kv_tiers.bandwidths")
    parser.add_argument("--device", default="h100", help="a preset or a TOML file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cost = PhysicalCost(Device.load(options.device), MODELS[MODEL], TP)
    steps = [step(cost, bandwidth) for bandwidth in BANDWIDTHS]
    runs = [run(cost, bandwidth) for bandwidth in BANDWIDTHS]
    console, setup = Console(stderr=True), f"{MODEL} on {cost.name}, TP {TP}"
    console.print(table(f"one conversation of {PROMPT} tokens comes back; {setup}", steps))
    console.print(table(f"{CONVERSATIONS} conversations of {PROMPT} tokens come back; {setup}", runs))
    if options.json:
        rows = {
            name: [asdict(row) | {"over_ideal": row.over_ideal} for row in found]
            for name, found in (("step", steps), ("run", runs))
        }
        json.dump({"simulated": True, "setup": setup, **rows}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
