"""Workloads by name, for a first answer before one's own traffic is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Lengths as ``parse_lengths`` takes them, and where they are from."""

    prompt_length: str
    output_length: str
    source: str


PRESETS = {
    "chat": Preset(
        "lognormal:1020,1.0",
        "lognormal:129,1.0",
        "medians of Azure's conversation trace of 2023 (Patel et al., Splitwise, ISCA 2024, section III); "
        "the spreads are ours",
    ),
    "summarize": Preset("lognormal:4000,0.5", "lognormal:200,0.4", "ours: long prompts, short outputs"),
    "reasoning": Preset("lognormal:200,0.7", "lognormal:3000,0.7", "ours: short prompts, long outputs"),
}
