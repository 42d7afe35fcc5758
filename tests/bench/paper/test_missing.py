"""What the document says is missing is so by the figures."""

from __future__ import annotations

import pytest

from bench.paper import data
from bench.paper.missing import host_ms
from bench.paper.outcome import Outcome


def test_contention_takes_more_tokens_than_the_paper_allows(outcome: Outcome) -> None:
    most = max(outcome.most_tokens.values())
    assert [needed.model for needed in outcome.contention] == ["Qwen2.5-32B", "Llama3.1-70B"]
    assert all(needed.tokens > 2 * most for needed in outcome.contention)
    assert all(needed.weights > 0.95 for needed in outcome.contention)


def test_the_chosen_lengths_are_what_memory_allows(outcome: Outcome) -> None:
    assert outcome.lengths.mean < min(outcome.most_tokens.values())


def test_host_time_differs_between_the_papers_rows() -> None:
    hosts = {row.model: host_ms(row) for row in data.ROWS}
    assert hosts["Qwen2.5-32B"] == pytest.approx(38.50 - 28.13, abs=0.01)
    assert max(hosts.values()) > 2 * min(hosts.values())
    assert min(hosts, key=lambda model: hosts[model]) == "Qwen2.5-7B"


def test_llama2_comes_out_too_slow_where_it_reads_most_keys(outcome: Outcome) -> None:
    found = {(f.what, f.mode): f.error for f in outcome.figures}
    assert found["Llama2-7B, t = 1", "full"] < -0.05


def test_other_choices_have_other_errors(outcome: Outcome) -> None:
    found = outcome.effects
    assert found[0].median == outcome.summary.median
    assert len({effect.worst for effect in found}) > len(found) / 2


def test_the_median_holds_in_a_wide_range_of_lengths_and_the_worst_near_the_chosen_ones(
    outcome: Outcome,
) -> None:
    found = {effect.what: effect for effect in outcome.effects}
    near = [found[f"prompts of 100, outputs of {output} tokens"] for output in (500, 700)]
    far = [
        found[f"prompts of {lengths} tokens"] for lengths in ("100, outputs of 1000", "400, outputs of 600")
    ]
    assert all(effect.median < 0.10 for effect in (*near, *far))
    assert all(effect.worst < 0.27 for effect in near)
    assert all(effect.worst > 0.27 for effect in far)
