"""What a gateway has of a checkpoint: how texts become ids and ids become text, and what requests may ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from albireo.checkpoint.fingerprint import fingerprint
from gateway.requests.sampling_defaults import sampling_defaults
from gateway.requests.validation import Validator
from gateway.text.detokenizer import Vocabulary
from gateway.text.text_codec import TextCodec


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Of one directory, as it was when it was loaded."""

    validator: Validator
    vocabulary: Vocabulary
    fingerprint: str

    @classmethod
    def load(cls, directory: Path, *, defaults: bool) -> Self:
        """Takes seconds for a large vocabulary. ``defaults``: whether generation_config.json counts.

        Raises CheckpointError if the directory lacks something, or has something that cannot be read.
        """
        codec = TextCodec(directory)
        validator = Validator(codec, sampling_defaults(directory) if defaults else None)
        return cls(validator, Vocabulary(codec.tokenizer), fingerprint(directory))
