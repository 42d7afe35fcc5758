"""The garbage collector during imports."""

from __future__ import annotations

import gc

import pytest

from albireo.runtime.imports import without_collection


def import_of_what_is_not_there() -> None:
    with without_collection():
        assert not gc.isenabled()
        raise ImportError


def test_the_collector_pauses_and_goes_on_also_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError):
        import_of_what_is_not_there()
    assert gc.isenabled()


def test_a_pause_within_a_pause_does_not_end_it() -> None:
    with without_collection():
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
