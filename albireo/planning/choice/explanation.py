"""Why a split was chosen: sentences that name the terms in which its neighbours differ from it."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.planning.choice.best import EQUAL, Choice, Limits
from albireo.planning.choice.outcome import Outcome

NAMED_TERMS = 3
LEAST = 0.02
"""Share of a token's device time below which a difference of a term is not named."""
FEW = 0.9
"""Share of the requests that could decode below which the decoding rows are called few."""


def explain(choice: Choice, outcomes: Sequence[Outcome], limits: Limits) -> list[str]:
    """A sentence or two on the limits, and one or two on each neighbour: the next lower and the next higher
    TP degree."""
    best = choice.best
    found = _limits(choice, outcomes, limits)
    ordered = sorted(outcomes, key=lambda outcome: outcome.split.tp)
    place = ordered.index(best)
    for neighbour in (*ordered[max(0, place - 1) : place], *ordered[place + 1 : place + 2]):
        found.append(_compare(best, neighbour))
        shortage = _shortage(neighbour)
        if shortage:
            found.append(shortage)
    own = _shortage(best)
    return [*found, own] if own else found


def _limits(choice: Choice, outcomes: Sequence[Outcome], limits: Limits) -> list[str]:
    if not choice.within:
        excess = limits.excess(choice.best)
        worst = ", ".join(f"{name} is {value:.2f} times its limit" for name, value in excess.items())
        return [f"No split keeps the limits. {choice.best.split} comes nearest: {worst}."]
    fastest = max(outcomes, key=lambda outcome: outcome.tokens_per_second)
    over = limits.excess(fastest)
    if over:
        gain = fastest.tokens_per_second / choice.best.tokens_per_second - 1
        return [f"{fastest.split} would have {gain:.0%} more throughput, but exceeds {' and '.join(over)}."]
    return []


def _compare(best: Outcome, other: Outcome) -> str:
    change = other.tokens_per_second / best.tokens_per_second - 1
    if abs(change) < EQUAL:
        return f"{other.split} has about the same throughput{_tpot(best, other)}."
    own, theirs = sum(best.terms.values()), sum(other.terms.values())
    head = f"{other.split} has {abs(change):.0%} {'more' if change > 0 else 'less'} throughput"
    terms = best.terms.keys() | other.terms.keys()
    changes = {term: other.terms.get(term, 0.0) - best.terms.get(term, 0.0) for term in terms}
    named = sorted(changes, key=lambda term: (-abs(changes[term]), term))[:NAMED_TERMS]
    parts = [f"{term} {changes[term] * 1e6:+.0f}" for term in named if abs(changes[term]) >= LEAST * own]
    if not parts:
        return f"{head}."
    return f"{head}: device µs per token: {theirs * 1e6:.0f}, here {own * 1e6:.0f} ({', '.join(parts)})."


def _tpot(best: Outcome, other: Outcome) -> str:
    if not (best.tpot and other.tpot):
        return ""
    return f", and a TPOT P99 of {other.tpot['p99'] * 1e3:.1f} ms, here {best.tpot['p99'] * 1e3:.1f} ms"


def _shortage(outcome: Outcome) -> str:
    """What the group is short of: slots, or KV memory, for which requests wait or are computed again."""
    reasons = []
    if outcome.concurrency and outcome.rows < FEW * min(outcome.slots, outcome.concurrency):
        if outcome.kv_headroom < 1 - FEW:
            few = f"{outcome.rows:.0f} decoding rows a step of {outcome.concurrency} requests in flight"
            reasons.append(f"its KV memory allows {few}, and weights are read for fewer rows")
    elif outcome.concurrency > outcome.slots:
        reasons.append(
            f"its {outcome.slots} slots hold a part of its {outcome.concurrency} requests in flight"
        )
    if outcome.preemptions:
        more = f", and prefill computes {outcome.recomputed:.0%} more tokens than the prompts have"
        again = more if outcome.recomputed >= LEAST else ""
        reasons.append(f"{outcome.preemptions} preemptions in a group{again}")
    return f"{outcome.split}: {'; '.join(reasons)}." if reasons else ""
