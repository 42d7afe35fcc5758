"""The optimal TP degree."""

from __future__ import annotations

from collections.abc import Mapping

from bench.paper.case import Case
from bench.paper.degrees import degrees
from bench.paper.outcome import Outcome


def test_the_definition_finds_the_papers_degrees_in_its_own_figures(
    paper_itself: Mapping[Case, float],
) -> None:
    assert [found.by_groups for found in degrees(paper_itself)] == [1, 2, 2, 4, 4, 8]


def test_the_best_split_of_the_devices_is_at_the_degrees_of_the_papers_text(outcome: Outcome) -> None:
    stated = [found for found in outcome.degrees if found.claim.stated]
    assert len(stated) == 4
    assert [found.by_devices for found in stated] == [found.paper for found in stated]


def test_the_degree_of_13b_is_the_papers_by_the_definition(outcome: Outcome) -> None:
    derived = [found for found in outcome.degrees if not found.claim.stated]
    assert [found.by_groups for found in derived] == [1, 2]
