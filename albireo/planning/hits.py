"""Where the prefixes of a simulated run were found. Its report and the comparison of splits ask for it."""

from __future__ import annotations

from albireo.planning.result import SimulationResult


def prompt_tokens(result: SimulationResult) -> int:
    """Of all admissions: a prompt counts again after a preemption, with the outputs so far."""
    return result.totals.prefill_tokens + result.totals.cached_tokens


def hit_tokens(result: SimulationResult) -> dict[str, int]:
    """Tokens that were not computed, by where their KV was: on the device, or in a tier by its name."""
    fetched = {tier.name: result.totals.fetched_tokens[number] for number, tier in enumerate(result.tiers)}
    return {"device": result.totals.cached_tokens - sum(fetched.values()), **fetched}


def hit_shares(result: SimulationResult) -> dict[str, float]:
    """Of the prompts' tokens; what was not hit is left out."""
    prompts = prompt_tokens(result)
    return {where: tokens / prompts for where, tokens in hit_tokens(result).items() if tokens}
