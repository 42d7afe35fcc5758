"""What is shown, written and drawn of an outcome."""

from __future__ import annotations

import json
from pathlib import Path

from bench.paper.chart import chart
from bench.paper.document import document
from bench.paper.outcome import Outcome
from bench.paper.tables import TextTable, all_tables, figures


def test_the_document_has_every_figure_and_no_open_place(outcome: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "paper.md"
    document(outcome, path, date="2026-01-02")
    text = path.read_text(encoding="utf-8")
    assert "$" not in text
    assert "Written on 2026-01-02" in text
    assert f"median error {100 * outcome.summary.median:.1f} %" in text
    for figure in outcome.figures:
        assert f"| {figure.what} | {figure.mode} | {figure.paper:.2f} | {figure.ours:.2f} |" in text


def test_a_degree_that_differs_from_the_paper_is_marked(outcome: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "paper.md"
    document(outcome, path, date="2026-01-02")
    wrong = [found for found in outcome.degrees if found.by_groups != found.paper]
    assert wrong
    assert all(f"{found.by_groups} (!)" in path.read_text(encoding="utf-8") for found in wrong)


def test_tables_for_the_terminal_have_all_rows(outcome: Outcome) -> None:
    tables = {table.title: table.rich() for table in all_tables(outcome)}
    assert len(tables) == 10
    assert figures(outcome, "gain").rich().row_count == 4


def test_markdown_aligns_numbers_to_the_right() -> None:
    table = TextTable("title", ("what", "figure"), [("a", "1"), ("b", "2")])
    assert table.markdown() == "| what | figure |\n| --- | --: |\n| a | 1 |\n| b | 2 |\n"


def test_the_picture_is_a_png(outcome: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "paper.png"
    chart(outcome, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_json_has_all_and_says_that_it_is_simulated(outcome: Outcome) -> None:
    written = json.loads(json.dumps(outcome.as_json()))
    assert written["simulated"] is True
    assert len(written["figures"]) == len(outcome.figures)
    assert written["worst_error"] == abs(outcome.summary.worst.error)
