"""What a checkpoint's generation_config.json says of sampling that a client leaves open."""

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
    """The values of the file that sampling knows; a field that it leaves open is not set.

    The names are those of transformers' ``GenerationConfig``, the selection is vLLM's (its
    ``get_diff_sampling_param``) and ``typical_p``. ``do_sample: false`` is greedy, as in transformers; where
    it is absent, values count, as in vLLM. A value that a client could not ask for is ignored with a
    warning. Raises CheckpointError for a file that cannot be read; without a file nothing is set.
    """
    path, defaults = directory / GENERATION, api.SamplingOptions()
    given = read_optional_json(path)
    for name in (*FLOATS, *COUNTS):
        if given.get(name) is None:
            continue
        try:
            _take(defaults, name, given[name])
        except ValueError as error:
            logger.warning("%s: %s; ignored", path, error)
    if given.get("do_sample") is False:
        defaults.temperature = 0
    return defaults


def _take(defaults: api.SamplingOptions, name: str, value: object) -> None:
    """Raises ValueError for a value that is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is not a number")
    if name in FLOATS:
        try:
            setattr(defaults, name, in_range(name, value))
        except Refusal as refusal:
            raise ValueError(refusal.message.removeprefix("sampling.")) from refusal
        except OverflowError as error:  # JSON bounds no number, a float does
            raise ValueError(f"{name}: {error}") from error
    elif isinstance(value, int) and 0 <= value < 2**31 and (value or name == "top_k"):
        setattr(defaults, COUNTS[name], value)
    else:
        raise ValueError(f"{name}: {value!r} is not a count")
