"""A checkpoint's tokenizer is what transformers makes of its files, or refused in a line that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from gateway.text.text_codec import TextCodec
from tests.robustness.checkpoints_made import CONFIG, OPTIONS, TOKENIZER, checkpoint

TEXT = "Tell me<extra> a story<other>, please.<|end|> <third>"
SMALLER: dict[str, Any] = {name: value for name, value in OPTIONS.items() if name != "chat_template"}
EXTRA = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
PADDING = {
    "strategy": {"Fixed": 32},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 1,
    "pad_type_id": 0,
    "pad_token": "<|end|>",
}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
FILES: dict[str, dict[str, object]] = {
    "truncation": {"tokenizer__json": {**TOKENIZER, "truncation": TRUNCATION}},
    "padding": {"tokenizer__json": {**TOKENIZER, "padding": PADDING}},
    "added_tokens.json": {"added_tokens__json": {"<extra>": 384, "<other>": 385}},
    "added_tokens_decoder": {
        "tokenizer_config__json": {
            **SMALLER,
            "added_tokens_decoder": {
                "384": {"content": "<extra>", **EXTRA},
                "385": {"content": "<other>", **EXTRA},
            },
        }
    },
    "special_tokens_map.json": {
        "special_tokens_map__json": {
            "additional_special_tokens": ["<extra>", "<third>"],
            "eos_token": {"content": "<other>", **EXTRA},
        },
        "tokenizer_config__json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    },
    "a BOS is asked for": {"tokenizer_config__json": {**SMALLER, "add_bos_token": True}},
    "a class of transformers": {
        "tokenizer_config__json": {**SMALLER, "tokenizer_class": "Qwen2Tokenizer"},
        "config__json": {**CONFIG, "model_type": "qwen2"},
    },
    "clean_up_tokenization_spaces": {
        "tokenizer_config__json": {**SMALLER, "clean_up_tokenization_spaces": True},
    },
    "vocab.json and merges.txt": {
        "tokenizer__json": None,
        "vocab__json": TOKENIZER["model"]["vocab"],
        "merges__txt": "\n".join(" ".join(pair) for pair in TOKENIZER["model"]["merges"]),
        "tokenizer_config__json": {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>"},
        "config__json": {**CONFIG, "model_type": "qwen2"},
    },
    "no tokenizer_config.json": {"tokenizer_config__json": None},
}


@pytest.mark.parametrize("name", FILES)
def test_ids_and_text_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    files = {"config__json": CONFIG, **FILES[name]}
    files["config__json"] = {**files["config__json"], "vocab_size": 400}  # type: ignore[dict-item]
    directory = checkpoint(tmp_path / "a name with spaces", **files)
    ours, theirs = TextCodec(directory), AutoTokenizer.from_pretrained(directory)
    for text in (TEXT, "x", "", "a  b , c ."):
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.encode(text, special=False) == theirs(text, add_special_tokens=False)["input_ids"]
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no vocab_size": ({"config__json": {"model_type": "gpt2"}}, r"config\.json: vocab_size is None"),
    "a type": ({"config__json": {**CONFIG, "vocab_size": "384"}}, r"config\.json: vocab_size is '384'"),
    "another type": (
        {"config__json": {**CONFIG, "rms_norm_eps": "x"}},
        r"config\.json: .*'rms_norm_eps' expected",
    ),
    "no JSON": ({"config__json": "{"}, r"config\.json: Expecting"),
    "no object": ({"config__json": "[]"}, r"config\.json: not a JSON object"),
    "sentencepiece": (
        {"tokenizer__json": None, "tokenizer__model": "spm"},
        "no tokenizer.json.*save_pretrained",
    ),
    "an old file": ({"tokenizer__json": {"version": "3"}}, r"tokenizer\.json"),
    "options that are a list": ({"tokenizer_config__json": []}, r"tokenizer_config\.json: not a JSON object"),
    "code": (
        {
            "tokenizer_config__json": {
                "tokenizer_class": "Own",
                "auto_map": {"AutoTokenizer": ["own.Own", "own.OwnFast"]},
            },
            "own__py": "raise SystemExit('ran')",
        },
        "code of the checkpoint, which is never run",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    files, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as raised:
        TextCodec(checkpoint(tmp_path, **files))
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_vocab_size_that_is_absent_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = AutoConfig.for_model(kind)
    names: list[dict[str, object]] = [
        {"model_type": kind},
        {"architectures": [f"{kind.capitalize()}ForCausalLM"]},
    ]
    for number, config in enumerate(names):
        made = checkpoint(
            tmp_path / str(number),
            config__json=config,
            tokenizer_config__json={**OPTIONS, "tokenizer_class": "PreTrainedTokenizerFast"},
        )
        assert TextCodec(made).vocab_size == theirs.vocab_size


def test_what_is_no_directory_says_what_to_give(tmp_path: Path) -> None:
    (file := tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"model\.gguf: a GGUF file; --model names a directory"):
        TextCodec(file)
    with pytest.raises(ValueError, match=r"meta-llama/Llama-2-7b: no such directory.*Download it first"):
        TextCodec(Path("meta-llama/Llama-2-7b"))
