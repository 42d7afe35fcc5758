"""What a gateway needs of a checkpoint: its tokenizer, chat template and a few numbers. No weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from albireo.v1 import inference_pb2 as api
from gateway.refusal import cut, invalid, unsupported

MAX_REASON = 256
"""Most characters of what a template says, which may repeat a message of the client."""


class Checkpoint:
    """Tokenizer and chat template of a directory in Hugging Face layout."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError and ValueError for what is missing or malformed."""
        config = _read(directory / "config.json")
        self.architecture: str = (config.get("architectures") or ["unknown"])[0]
        self.vocab_size = int(config["vocab_size"])
        self.tokenizer = _tokenizer(directory / "tokenizer.json")
        self.longest_token_bytes: int | None = max(
            len(token.encode()) for token in self.tokenizer.get_vocab(with_added_tokens=True)
        )
        """Most UTF-8 bytes of text that one id stands for; None: not bounded."""
        options = directory / "tokenizer_config.json"
        self._options = _read(options) if options.exists() else {}
        template = directory / "chat_template.jinja"
        source = (
            template.read_text(encoding="utf-8") if template.exists() else self._options.get("chat_template")
        )
        if isinstance(source, list):  # several named templates
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        self._template = None if source is None else _environment().from_string(source)

    @property
    def chats(self) -> bool:
        return self._template is not None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of plain text; ``special`` adds what the tokenizer puts around it (a BOS, mostly)."""
        # The batch calls, unlike `encode` and `decode`, let go of the interpreter lock.
        ids: list[int] = self.tokenizer.encode_batch([text], add_special_tokens=special)[0].ids
        return ids

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        [text] = self.tokenizer.decode_batch([ids], skip_special_tokens=skip_special_tokens)
        return str(text)

    def encode_chat(self, messages: Sequence[api.ChatMessage], field: str) -> list[int]:
        """Ids of a conversation and the beginning of the answer. Raises Refusal that names ``field``."""
        if self._template is None:
            raise unsupported(field, "this checkpoint has no chat template")
        if not messages:
            raise invalid(f"{field}.messages", "empty")
        try:
            text = self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=True,
                bos_token=_token_text(self._options.get("bos_token")),
                eos_token=_token_text(self._options.get("eos_token")),
            )
        except TemplateError as error:
            raise invalid(
                f"{field}.messages", f"the chat template refuses them: {cut(str(error), MAX_REASON)}"
            ) from error
        # Templates write their own special tokens.
        return self.encode(text, special=False)


def _tokenizer(path: Path) -> Tokenizer:
    text = path.read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a JSON object")
    return value


def _token_text(token: Any) -> str:
    """Configs name a special token by its text, or by a record that has it."""
    return str(token["content"] if isinstance(token, dict) else token or "")


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that Hugging Face templates are written for; templates are not trusted."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    return environment
