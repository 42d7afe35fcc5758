"""Renders conversations to text by the chat template of the checkpoint, through transformers.

:class:`gateway.text.text_codec.TextCodec` calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateSyntaxError

from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import cut, invalid, unsupported
from gateway.text.pretrained import one_line

logger = logging.getLogger(__name__)

MAX_REASON = 256
"""Most characters of a template's error, which may repeat a message of the client."""


class ChatTemplate:
    """The default template of a tokenizer, if it has one. Thread-safe."""

    def __init__(self, pretrained: Any) -> None:
        """``pretrained``: a tokenizer of transformers."""
        self._pretrained = pretrained
        template = pretrained.chat_template
        # If there are several named ones, transformers uses this one for a conversation without tools.
        self.exists = "default" in template if isinstance(template, dict) else template is not None
        self._fault = ""
        if self.exists:
            try:
                self._render([{"role": "user", "content": ""}])
            except TemplateSyntaxError as error:
                self._fault = one_line(error, MAX_REASON)
                logger.warning(
                    "%s: chats are refused, the chat template has an error: %s",
                    pretrained.name_or_path,
                    self._fault,
                )
            except Exception as error:  # noqa: BLE001  (it may refuse this message; it compiles)
                logger.debug("the chat template refuses an empty message: %s", one_line(error))

    @property
    def usable(self) -> bool:
        """Whether there is a template, without errors of syntax."""
        return self.exists and not self._fault

    def render(self, messages: Sequence[api.ChatMessage], field: str) -> str:
        """The text of a conversation and of the answer's beginning. Raises Refusal that names ``field``."""
        if not self.exists:
            raise unsupported(field, "this checkpoint has no chat template")
        if self._fault:
            raise invalid(f"{field}.messages", f"the checkpoint's chat template has an error: {self._fault}")
        if not messages:
            raise invalid(f"{field}.messages", "empty")
        try:
            return self._render([{"role": m.role, "content": m.content} for m in messages])
        except Exception as error:  # a template is a program and may raise anything; the messages caused it
            reason = cut(f"{error}" or type(error).__name__, MAX_REASON)
            error.with_traceback(None)  # a thousand frames long if the template calls itself
            raise invalid(f"{field}.messages", f"the chat template refuses them: {reason}") from error

    def _render(self, messages: list[dict[str, str]]) -> str:
        text: str = self._pretrained.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text
