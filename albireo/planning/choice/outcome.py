"""What the simulation of one split has found. Everything in it is simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from albireo.planning.choice.split import Split


@dataclass(frozen=True, slots=True)
class Outcome:
    """Latencies are those of one group, all being alike, in seconds. Throughput, latencies, rows, terms and
    energy are of the steady part of the run."""

    split: Split
    num_blocks: int  # KV blocks of each group
    slots: int  # of each group
    concurrency: int  # requests at a time in each group; 0 in an open loop
    requests: int  # simulated ones, of one group
    errors: dict[str, int]  # why requests failed, and how many: refused or ended early
    tokens_per_second: float  # output tokens, of all groups
    ttft: dict[str, float]  # "p50", "p99", ...
    tpot: dict[str, float]  # likewise; empty where all requests have one token
    kv_headroom: float  # share of the KV blocks that were never in use
    preemptions: int  # of one group
    hits: dict[str, float]  # share of the prompt tokens whose KV was on the device, or in each tier
    recomputed: float  # prompt tokens that were computed over those of the prompts, less 1; 0 at least
    rows: float  # decoding rows of a step, on average
    terms: dict[str, float]  # device seconds of an output token, see ``device_time``
    joules_per_token: float | None  # None where the device's power is not known

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def group_tokens_per_second(self) -> float:
        return self.tokens_per_second / self.split.groups

    def as_json(self) -> dict[str, Any]:
        return {
            "split": str(self.split),
            "tp": self.split.tp,
            "groups": self.split.groups,
            "output_tokens_per_second": self.tokens_per_second,
            "ttft": self.ttft,
            "tpot": self.tpot,
            "kv_blocks": self.num_blocks,
            "kv_headroom": self.kv_headroom,
            "preemptions_of_a_group": self.preemptions,
            "prefix_hits": self.hits,
            "recomputed_share": self.recomputed,
            "decoding_rows": self.rows,
            "joules_per_output_token": self.joules_per_token,
            "requests_simulated": self.requests,
            "requests_failed": self.failed,
            "errors": self.errors,
            "slots_of_a_group": self.slots,
            "concurrency_of_a_group": self.concurrency,
            "device_seconds_per_token": self.terms,
        }
