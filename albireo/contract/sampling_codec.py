"""How one request's tokens are chosen, to and from protobuf: a part of submissions and of admissions."""

from __future__ import annotations

from albireo.contract.plan import SamplingParams
from albireo.v1 import log_pb2 as log


def sampling_to_proto(params: SamplingParams) -> log.Sampling:
    return log.Sampling(
        max_tokens=params.max_tokens,
        min_tokens=params.min_tokens,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        seed=params.seed,
        stop_ids=params.stop_ids,
        ignore_eos=params.ignore_eos,
        logprobs=params.logprobs,
        prompt_logprobs=params.prompt_logprobs,
        typical_p=params.typical_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        bias_ids=[token for token, _ in params.logit_bias],
        biases=[bias for _, bias in params.logit_bias],
        allowed_ids=params.allowed_ids,
        bad_ids=params.bad_ids,
    )


def sampling_from_proto(message: log.Sampling) -> SamplingParams:
    """Raises ValueError where ids and biases differ in number."""
    bias_ids, biases = message.bias_ids, message.biases
    if len(bias_ids) != len(biases):
        raise ValueError(f"{len(bias_ids)} token ids with {len(biases)} biases")
    return SamplingParams(
        max_tokens=message.max_tokens,
        seed=message.seed,
        min_tokens=message.min_tokens,
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        min_p=message.min_p,
        stop_ids=tuple(message.stop_ids),
        ignore_eos=message.ignore_eos,
        logprobs=message.logprobs,
        prompt_logprobs=message.prompt_logprobs,
        typical_p=message.typical_p,
        repetition_penalty=message.repetition_penalty,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        logit_bias=tuple(zip(bias_ids, biases, strict=True)),
        allowed_ids=tuple(message.allowed_ids),
        bad_ids=tuple(message.bad_ids),
    )
