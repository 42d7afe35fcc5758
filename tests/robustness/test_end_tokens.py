"""End tokens are those that config, generation config and tokenizer name; others are ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from albireo.contract.plan import SamplingParams
from tests.robustness.served import edit, prompt_of
from tests.worker_svc.checkpoints import FAMILIES, VOCAB, write
from tests.worker_svc.oracle import Ask, Scenario, make_runner, run
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.config import ModelConfig

WORDS = {"a": 0, "b": 1, "<unk>": 2, "</s>": 3, "<|im_end|>": 4}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ends") / "model"
    write(FAMILIES["llama2"], directory)
    return directory


@pytest.fixture
def model(tmp_path: Path, written: Path) -> Path:
    (tmp_path / "config.json").write_text((written / "config.json").read_text())
    return tmp_path


def config_of(directory: Path, config: Any, generation: Any = None) -> ModelConfig:
    edit(directory / "config.json", eos_token_id=config)
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    return ModelConfig.from_dir(directory)


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (5, [6, 7], {5, 6, 7}),
        ([5, None, -1], 6, {5, 6}),
        (-1, -1, set()),
        ([VOCAB - 1, VOCAB], [10**9], {VOCAB - 1}),
        (5, ["6", True, 2.0], {5}),
    ],
)
def test_ids_of_both_configs(model: Path, config: Any, generation: Any, expected: set[int]) -> None:
    assert config_of(model, config, generation).eos_ids == expected


def test_what_is_ignored_is_named_in_one_warning(model: Path) -> None:
    [warning] = config_of(model, [5, 999], [-1, None, 1000]).warnings
    assert "config.json: eos_token_id: 999" in warning
    assert "generation_config.json: eos_token_id: 1000" in warning
    assert config_of(model, 5, [-1, None]).warnings == ()


def word_level(directory: Path) -> None:
    Tokenizer(models.WordLevel(WORDS, unk_token="<unk>")).save(str(directory / "tokenizer.json"))


def unigram(directory: Path) -> None:
    pieces = [(word, 0.0) for word in WORDS]
    Tokenizer(models.Unigram(pieces, unk_id=2)).save(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("make", [word_level, unigram])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"eos_token": "<|im_end|>"}),
        ("tokenizer_config.json", {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}}),
        ("special_tokens_map.json", {"eos_token": "</s>"}),
        ("special_tokens_map.json", {"eos_token": {"content": "</s>"}}),
        ("tokenizer_config.json", {"eos_token": None}),
    ],
)
def test_the_tokenizers_own_end_token(model: Path, make: Any, file: str, content: dict[str, Any]) -> None:
    make(model)
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    edit(model / file, **content)
    theirs = AutoTokenizer.from_pretrained(model).eos_token_id
    assert config_of(model, 5).eos_ids == {5} | ({theirs} if theirs is not None else set())


@pytest.mark.parametrize("field", ["added_tokens_decoder", "added_tokens.json"])
def test_an_end_token_that_was_added(model: Path, field: str) -> None:
    word_level(model)
    options: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eot|>"}
    if field == "added_tokens_decoder":
        options[field] = {"5": {"content": "<|eot|>", "special": True}}
    else:
        (model / "added_tokens.json").write_text(json.dumps({"<|eot|>": 5}))
    (model / "tokenizer_config.json").write_text(json.dumps(options))
    assert config_of(model, 7).eos_ids == {7, AutoTokenizer.from_pretrained(model).eos_token_id}


def test_end_tokens_beyond_the_vocabulary_and_min_tokens(tmp_path: Path) -> None:
    """The sampler masks end tokens below min_tokens: one that is no column of the logits stopped the rank."""
    write(FAMILIES["llama2"], tmp_path)
    edit(tmp_path / "generation_config.json", eos_token_id=[VOCAB, 5])
    group, scenario = TPGroup(), Scenario()
    sampling = SamplingParams(max_tokens=4, seed=0, temperature=0.0, min_tokens=3)
    asks = [Ask("a", prompt_of(8), sampling)]
    outcome = run(make_runner(tmp_path, group, scenario), group, scenario, asks).answers["a"]
    assert len(outcome.ids) >= 3
