"""Sampling that a client leaves open is the checkpoint's, where generation_config.json has any."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from albireo.checkpoint.files import GENERATION as FILE
from albireo.contract.plan import SamplingParams
from albireo.v1 import inference_pb2 as api
from gateway.requests.sampling import SamplingValidator
from gateway.requests.sampling_defaults import sampling_defaults

ROOM = 100


def params(directory: Path, content: object, **options: Any) -> SamplingParams:
    (directory / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    validator = SamplingValidator(384, sampling_defaults(directory))
    return validator.params(api.SamplingOptions(seed=1, **options), ROOM, ())


def test_values_that_transformers_reads_are_taken(tmp_path: Path) -> None:
    """As Qwen 2.5's file, written by transformers."""
    file = GenerationConfig(
        do_sample=True, temperature=0.75, top_k=20, top_p=0.5, repetition_penalty=1.25, max_new_tokens=50
    )
    file.save_pretrained(tmp_path)
    got = params(tmp_path, (tmp_path / FILE).read_text())
    for ours, theirs in (
        ("max_tokens", "max_new_tokens"),
        *((name, name) for name in ("temperature", "top_k")),
    ):
        assert getattr(got, ours) == getattr(file, theirs)
    assert (got.top_p, got.repetition_penalty, got.min_p) == (file.top_p, file.repetition_penalty, 0)


def test_a_value_that_a_client_sets_has_precedence_even_if_it_is_the_default(tmp_path: Path) -> None:
    file = {"do_sample": False, "top_k": 20, "top_p": 0.5, "max_new_tokens": 50}
    got = params(tmp_path, file, temperature=1, top_k=0, top_p=1, max_tokens=60)
    assert (got.temperature, got.top_k, got.top_p, got.max_tokens) == (1, 0, 1, 60)


@pytest.mark.parametrize(
    ("file", "temperature"),
    [
        ({"do_sample": False, "temperature": 0.5}, 0),
        ({"do_sample": True}, 1),
        ({}, 1),
        ({"temperature": 0.5}, 0.5),
    ],
)
def test_no_sampling_is_greedy(tmp_path: Path, file: dict[str, Any], temperature: float) -> None:
    assert params(tmp_path, file).temperature == temperature


def test_the_context_bounds_what_the_file_wants(tmp_path: Path) -> None:
    assert params(tmp_path, {"max_new_tokens": 2048}).max_tokens == ROOM


@pytest.mark.parametrize(
    "value",
    [
        {"temperature": -1},
        {"temperature": "0.5"},
        {"top_p": 0},
        {"min_p": float("nan")},
        {"top_k": -1},
        {"top_k": 0.5},
        {"repetition_penalty": True},
        {"max_new_tokens": 0},
        {"typical_p": [1]},
        {"temperature": 10**400},
        {"top_k": 10**400},
    ],
)
def test_a_value_out_of_range_is_ignored_with_a_warning(
    tmp_path: Path, value: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        got = params(tmp_path, value)
    assert got == SamplingValidator(384).params(api.SamplingOptions(seed=1), ROOM, ())
    [record] = caplog.records
    assert f"{FILE}: {next(iter(value))}: " in record.getMessage()


def test_null_sets_nothing_and_other_fields_are_ignored(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        '{"temperature": null, "eos_token_id": -1, "cache_implementation": "hybrid"}'
    )
    assert not sampling_defaults(tmp_path).ListFields()


def test_a_file_that_is_no_object_is_an_error_that_names_it(tmp_path: Path) -> None:
    for text in ("[]", "{", "\ufffd"):
        with pytest.raises(ValueError, match=FILE):
            params(tmp_path, text)
