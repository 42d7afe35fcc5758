"""Log-probabilities of prompts: of every token given those before it, in slices that bound the memory.

``prompt_input`` belongs to the input stage, ``prompt_words`` to the compute stage of every rank,
``prompt_messages`` to the output stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from albireo.v1 import inference_pb2 as api
from worker_svc.buffers.arrays import HostArray, Ints
from worker_svc.buffers.structs import A, Struct, int64
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.logprobs import as_words, to_messages
from worker_svc.sampling.rows import PromptRows
from worker_svc.sampling.tiles import largest, tile_maxima

SLICE = 1 << 24
"""Logits of prompt rows, over all ranks, that exist at a time."""

PromptLogprobs = dict[int, tuple[int, list[api.TokenLogprobs]]]
"""By incarnation: index of the first token, and the log-probabilities of each from there on."""


@dataclass(frozen=True, slots=True)
class PromptInput(Struct[A]):
    """Rows of one step that give log-probabilities of prompt tokens."""

    rows: Annotated[A, int64("targets")]  # among the rows of the step
    targets: Annotated[A, int64("targets")]  # the tokens whose log-probabilities are wanted
    most: int  # how many of the most likely tokens any of them wants


def prompt_input(prompts: Sequence[PromptRows]) -> PromptInput[HostArray] | None:
    """Of all prompts of a step, one after the other; None where there are none."""
    if not prompts:
        return None
    return PromptInput(
        rows=np.concatenate([prompt.rows for prompt in prompts]),
        targets=np.concatenate([prompt.targets for prompt in prompts]),
        most=max(prompt.most for prompt in prompts),
    )


def prompt_words(
    logits_of: Callable[[Tensor], Tensor], prompts: PromptInput[Tensor], vocab_size: int, group: TPGroup
) -> Tensor | None:
    """As :meth:`ModelLogprobs.words` lays them out, ``[n, 1 + 2 * most]``; None on ranks other than 0.

    ``logits_of``: this rank's columns of the logits for some rows of the step.
    """
    rows = max(1, SLICE // vocab_size)
    slices = zip(prompts.rows.split(rows), prompts.targets.split(rows), strict=True)
    most = min(prompts.most, vocab_size)
    found = [_score(logits_of(some), targets, most, vocab_size, group) for some, targets in slices]
    return None if group.rank else torch.cat([words for words in found if words is not None])


def _score(logits: Tensor, targets: Tensor, most: int, vocab_size: int, group: TPGroup) -> Tensor | None:
    """Each rank reduces its columns to a normalizer, the target's logit and its largest; rank 0 merges."""
    first = group.rank * logits.shape[1]
    logits = logits[:, : max(0, vocab_size - first)].float()
    width = logits.shape[1]
    local = targets.unsqueeze(1) - first
    here = (local >= 0) & (local < width)
    # A column more, of -inf: a rank may hold padding alone, or fewer than are asked for.
    padded = pad(logits, (0, max(1, most - width)), value=-torch.inf)
    target = padded.gather(1, torch.where(here, local, width))
    rows = torch.arange(len(padded), device=padded.device)
    top, ids = largest(padded, rows, tile_maxima(padded), most)
    numbers = as_words(torch.cat([padded.logsumexp(-1, keepdim=True), target, top], dim=1))
    counts = (len(logits), *[0] * (group.size - 1))
    gathered = group.exchange_columns(torch.cat([numbers, ids + first], dim=1), counts, torch.int64)
    return None if group.rank else _merge(gathered.unflatten(1, (group.size, -1)), most)


def _merge(words: Tensor, most: int) -> Tensor:
    """``[n, ranks, 2 + 2 * most]``: a normalizer, a target's logit, the largest logits, their ids."""
    numbers = words[:, :, : 2 + most].to(torch.int32).view(torch.float32)
    normalizer = numbers[:, :, 0].logsumexp(-1, keepdim=True)
    # An infinite normalizer gives no log-probabilities either: NaN ends the request.
    normalizer = normalizer.masked_fill(~normalizer.isfinite(), torch.nan)
    target = numbers[:, :, 1].amax(-1, keepdim=True)
    top, places = numbers[:, :, 2:].flatten(1).topk(most, dim=-1)
    ids = words[:, :, 2 + most :].flatten(1).gather(1, places)
    return torch.cat([as_words(target - normalizer), ids, as_words(top - normalizer)], dim=1)


def prompt_messages(prompts: Sequence[PromptRows], words: Ints) -> PromptLogprobs:
    """``words``: of all their rows, one prompt after the other."""
    wanted = [prompt.most for prompt in prompts for _ in prompt.targets]
    messages, found, first = to_messages(words, wanted), {}, 0
    for prompt in prompts:
        last = first + len(prompt.targets)
        found[prompt.incarnation] = prompt.start, messages[first:last]
        first = last
    return found
