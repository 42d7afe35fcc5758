"""Checks ``SamplingOptions``: sampling parameters, or a refusal that names the field. Validation calls it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterable, Mapping

from albireo.contract.bounds import (
    BIAS_RANGE,
    MAX_LOGPROBS,
    MAX_STOP_IDS,
    MAX_TOKEN_IDS,
    MAX_TOP_K,
    NOT_ZERO,
    RANGES,
)
from albireo.contract.plan import MAX_BRANCHES, SamplingParams
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import invalid

DEFAULT_MAX_TOKENS = 256
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024


class SamplingValidator:
    """Checks the options of requests to one model. Thread-safe."""

    def __init__(self, vocab_size: int, defaults: api.SamplingOptions | None = None) -> None:
        """``defaults``: of the checkpoint, for options that a client does not set."""
        self._vocab_size = vocab_size
        self.defaults = defaults or api.SamplingOptions()

    def params(self, given: api.SamplingOptions, max_new: int, eos_ids: Collection[int]) -> SamplingParams:
        """Raises Refusal. ``max_new``: most new tokens that fit into the context; ``eos_ids``: end tokens of
        the model.

        Options that neither the client nor the checkpoint sets get the defaults of :class:`SamplingParams`.
        These are the documented ones, except for max_tokens, temperature and seed, which are set here.
        """
        options = api.SamplingOptions()
        options.CopyFrom(self.defaults)
        options.MergeFrom(given)
        if not given.HasField("max_tokens"):
            options.max_tokens = min(self.defaults.max_tokens or DEFAULT_MAX_TOKENS, max_new)
        values: dict[str, float] = {}
        for name in RANGES:
            if options.HasField(name):
                values[name] = in_range(name, getattr(options, name))
        max_tokens = options.max_tokens
        if not 1 <= max_tokens <= max_new:
            raise invalid(
                "sampling.max_tokens", f"{max_tokens}; must be 1 to {max_new}, what the context leaves"
            )
        if options.min_tokens > max_tokens:
            raise invalid("sampling.min_tokens", f"{options.min_tokens} is above max_tokens, {max_tokens}")
        if options.top_k > MAX_TOP_K:
            raise invalid("sampling.top_k", "must be below 2^31")
        params = SamplingParams(
            **values,
            max_tokens=max_tokens,
            min_tokens=options.min_tokens,
            # The whole vocabulary or more is the same as off.
            top_k=options.top_k if options.top_k < self._vocab_size else 0,
            seed=options.seed if options.HasField("seed") else secrets.randbits(64),
            stop_ids=self._ids("stop_token_ids", options.stop_token_ids, MAX_STOP_IDS),
            ignore_eos=options.ignore_eos,
            logprobs=_logprobs(options, "logprobs"),
            prompt_logprobs=_logprobs(options, "prompt_logprobs"),
            logit_bias=self._biases(options.logit_bias),
            allowed_ids=self._ids("allowed_token_ids", options.allowed_token_ids, MAX_TOKEN_IDS),
            bad_ids=self._ids("bad_token_ids", options.bad_token_ids, MAX_TOKEN_IDS),
        )
        self._check_drawable(params, eos_ids)
        return params

    def check_ids(self, field: str, ids: Iterable[int]) -> None:
        """Raises Refusal for an id beyond the vocabulary."""
        largest = max(ids, default=0)
        if largest >= self._vocab_size:
            raise invalid(field, f"{largest} is not below the vocabulary's {self._vocab_size}")

    def _ids(self, name: str, ids: Collection[int], most: int) -> tuple[int, ...]:
        """The distinct ids. Raises Refusal."""
        if len(ids) > most:
            raise invalid(f"sampling.{name}", f"at most {most}")
        self.check_ids(f"sampling.{name}", ids)
        return tuple(dict.fromkeys(ids))

    def _biases(self, biases: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
        ids = self._ids("logit_bias", biases, MAX_TOKEN_IDS)
        return tuple((token, in_range("logit_bias", biases[token], BIAS_RANGE)) for token in sorted(ids))

    def _check_drawable(self, params: SamplingParams, eos_ids: Collection[int]) -> None:
        """Raises Refusal if the options leave no token to draw."""
        allowed, bad = set(params.allowed_ids), set(params.bad_ids)
        if allowed and allowed <= bad:
            raise invalid("sampling.allowed_token_ids", "all of them are in bad_token_ids")
        if len(bad) >= self._vocab_size:
            raise invalid("sampling.bad_token_ids", "they leave no token of the vocabulary")
        if params.min_tokens:
            masked = bad.union(params.stop_ids, () if params.ignore_eos else eos_ids)
            if (allowed and allowed <= masked) or len(masked) >= self._vocab_size:
                raise invalid(
                    "sampling.min_tokens",
                    "every token that allowed_token_ids and bad_token_ids leave is an end token",
                )


def branches_of(options: api.SamplingOptions) -> int:
    """The number of answers. Raises Refusal."""
    n = options.n if options.HasField("n") else 1
    if not 1 <= n <= MAX_BRANCHES:
        raise invalid("sampling.n", f"{n}; must be 1 to {MAX_BRANCHES}")
    return n


def stops_of(options: api.SamplingOptions) -> tuple[str, ...]:
    """The stop strings. Raises Refusal."""
    if len(options.stop) > MAX_STOPS:
        raise invalid("sampling.stop", f"at most {MAX_STOPS}")
    for stop in options.stop:
        if not 1 <= len(stop) <= MAX_STOP_LENGTH:
            raise invalid("sampling.stop", f"each must have 1 to {MAX_STOP_LENGTH} characters")
    return tuple(options.stop)


def _logprobs(options: api.SamplingOptions, name: str) -> int:
    if not options.HasField(name):
        return -1
    count: int = getattr(options, name)
    if count > MAX_LOGPROBS:
        raise invalid(f"sampling.{name}", f"at most {MAX_LOGPROBS}")
    return count


def in_range(name: str, value: float, bounds: tuple[float, float] | None = None) -> float:
    """Returns ``value``. Raises Refusal if it is outside ``bounds``, or else the option's range."""
    low, high = bounds or RANGES[name]
    if not (math.isfinite(value) and low <= value <= high):
        raise invalid(f"sampling.{name}", f"{value:g}; must be {low:g} to {high:g}")
    if value == 0 and name in NOT_ZERO:
        raise invalid(f"sampling.{name}", "must be above 0")
    return value
