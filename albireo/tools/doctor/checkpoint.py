"""Checks the directory of the model as gateways and workers will read it."""

from __future__ import annotations

from pathlib import Path

from albireo.checkpoint.files import CheckpointError
from albireo.tools.doctor.finding import Finding, failure, ok, size, warning
from gateway.text.text_codec import TextCodec
from worker_svc.model.config import ModelConfig
from worker_svc.model.weight_files import weight_files


def check_config(directory: Path, tp: int) -> tuple[list[Finding], ModelConfig | None]:
    """Findings, and the config where it is one that can be served."""
    try:
        config = ModelConfig.from_dir(directory)
    except CheckpointError as error:
        advice = "--model names a directory in Hugging Face layout, of a family that is served"
        return [failure("model", str(error), advice)], None
    found = [
        ok(
            "model",
            f"{directory}: {config.architecture}, {config.num_layers} layers, {config.num_heads} heads "
            f"({config.num_kv_heads} for KV), {config.max_positions} positions",
        )
    ]
    try:
        config.check_tp(tp)
        found.append(ok("model tp", f"can be divided among {tp}"))
    except CheckpointError as error:
        fitting = [str(n) for n in range(1, config.num_kv_heads + 1) if config.divides_by(n)]
        found.append(failure("model tp", str(error), f"choose --tp {', '.join(fitting)}"))
    found += [warning("model", text, "correct the file") for text in config.warnings]
    if not config.eos_ids:
        found.append(
            warning(
                "model end",
                "no end token in config.json, generation_config.json or the tokenizer's files",
                "name one: requests end by their length only",
            )
        )
    return found, config


def check_files(directory: Path) -> Finding:
    """Whether the files of the weights exist; their content is checked with torch, in ``memory``."""
    try:
        files = weight_files(directory)
    except CheckpointError as error:
        return failure("model weights", str(error), AGAIN)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        found = f"{directory}: {len(missing)} of {len(files)} files are missing: {', '.join(missing[:3])}"
        return failure("model weights", found, AGAIN)
    total = sum(file.stat().st_size for file in files)
    return ok("model weights", f"{len(files)} files, {size(total)}")


AGAIN = "fetch the checkpoint again; only safetensors are read"


def check_tokenizer(directory: Path) -> list[Finding]:
    """Loads the tokenizer as a gateway does."""
    try:
        text_codec = TextCodec(directory)
    except KeyError as error:
        return [failure("tokenizer", f"{directory}: field {error} is missing", "correct config.json")]
    except (OSError, ValueError) as error:
        return [
            failure("tokenizer", f"{directory}: {error}", "gateways need tokenizer.json next to config.json")
        ]
    known = text_codec.tokenizer.get_vocab_size()
    found = f"{known} tokens, {'with' if text_codec.has_chat_template else 'without'} a usable chat template"
    if known > text_codec.vocab_size:
        found += f", but the model has {text_codec.vocab_size}"
        if text_codec.tokenizer.get_vocab_size(with_added_tokens=False) > text_codec.vocab_size:
            return [failure("tokenizer", found, "tokenizer.json belongs to another model")]
        return [warning("tokenizer", found, "texts with the added tokens that it lacks are refused")]
    if not text_codec.has_chat_template:
        return [
            warning(
                "tokenizer",
                found,
                "`generate --raw` only: for conversations add a chat_template.jinja without errors",
            )
        ]
    return [ok("tokenizer", found)]
