"""Which device a test runs on: a card and the simulated one, or a card alone where it says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.worker_svc.cuda.conftest import CARD, SIMULATED, pytest_generate_tests

TESTS = Path(__file__).resolve().parents[2]
WITHOUT_REASON = re.compile(r'mark\.gpu\b(?!\(\s*"\w)')


def devices_of(mark: pytest.Mark | None) -> list[Any]:
    """Of a test with that mark ``gpu`` of its own."""
    metafunc = MagicMock(fixturenames=["cuda"])
    metafunc.definition.get_closest_marker.return_value = mark
    pytest_generate_tests(metafunc)
    _, devices = metafunc.parametrize.call_args.args
    return list(devices)


def test_a_new_test_runs_on_the_simulated_device_as_well() -> None:
    assert devices_of(None) == [CARD, SIMULATED]
    assert devices_of(pytest.mark.gpu("it reads a clock of the card").mark) == [CARD]
    assert [mark.name for mark in CARD.marks] == ["gpu"]
    assert not SIMULATED.marks


def test_what_runs_on_a_card_alone_says_why() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}
    assert [path.name for path, text in texts.items() if WITHOUT_REASON.search(text)] == []
