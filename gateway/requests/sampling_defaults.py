"""Defaults of sampling options from a checkpoint's generation_config.json. Read once, at the start."""

from __future__ import annotations

import logging
from pathlib import Path

from albireo.checkpoint.files import GENERATION, read_optional_json
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.requests.sampling import in_range

logger = logging.getLogger(__name__)

FLOATS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty")
COUNTS = {"top_k": "top_k", "max_new_tokens": "max_tokens"}


def sampling_defaults(directory: Path) -> api.SamplingOptions:
    """The file's values of options that exist here; others are not set.

    The names are those of transformers' ``GenerationConfig``, the selection is vLLM's (its
    ``get_diff_sampling_param``) and ``typical_p``. ``do_sample: false`` is greedy, as in transformers; if
    it is absent, the values apply, as in vLLM. A value outside the range of the API is ignored with a
    warning. Raises CheckpointError for a file that cannot be read; without a file nothing is set.
    """
    path, defaults = directory / GENERATION, api.SamplingOptions()
    given = read_optional_json(path)
    for name in (*FLOATS, *COUNTS):
        if given.get(name) is None:
            continue
        try:
            _set(defaults, name, given[name])
        except ValueError as error:
            logger.warning("%s: %s; ignored", path, error)
    if given.get("do_sample") is False:
        defaults.temperature = 0
    return defaults


def _set(defaults: api.SamplingOptions, name: str, value: object) -> None:
    """Raises ValueError for a value that is not valid for the option."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is not a number")
    if name in FLOATS:
        try:
            setattr(defaults, name, in_range(name, value))
        except Refusal as refusal:
            raise ValueError(refusal.message.removeprefix("sampling.")) from refusal
        except OverflowError as error:  # JSON numbers are not bounded, floats are
            raise ValueError(f"{name}: {error}") from error
    elif isinstance(value, int) and 0 <= value < 2**31 and (value or name == "top_k"):
        setattr(defaults, COUNTS[name], value)
    else:
        raise ValueError(f"{name}: {value!r} is not a count")
