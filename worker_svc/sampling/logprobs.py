"""Log-probabilities of the model: natural logarithms, before any control."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from albireo.v1 import inference_pb2 as api
from worker_svc.arrays import Ints
from worker_svc.sampling.blocks import CHUNK, largest


class ModelLogprobs:
    """Of some rows of logits, as the model left them."""

    def __init__(self, logits: Tensor, most: int) -> None:
        """``logits``: ``[rows, vocabulary]``, kept; ``most``: how many of the most likely ids to tell."""
        self._logits = logits
        self._most = most

    def words(self, ids: Tensor) -> Tensor:
        """``[rows, 1 + 2 * most]`` int64: of ``ids`` ``[rows]``, then the most likely ids, then theirs.

        Numbers are fp32 as their bits.
        """
        values, top = largest(self._logits, max(self._most, 1))
        normalizer = _normalizer(self._logits, values[:, :1], top[:, :1])
        chosen = self._logits.gather(1, ids.clamp(min=0).unsqueeze(1)) - normalizer
        if not self._most:
            return as_words(chosen)
        return torch.cat([as_words(chosen), top, as_words(values - normalizer)], dim=1)


def _normalizer(logits: Tensor, highest: Tensor, places: Tensor) -> Tensor:
    """``logsumexp`` of each row, ``[rows, 1]``, told from its largest number and where that is.

    The softmax of a row is one kernel that keeps it in cache, and several times faster.
    """
    rows = max(1, CHUNK[logits.device.type] // logits.shape[1])
    parts = zip(logits.split(rows), highest.split(rows), places.split(rows), strict=True)
    return torch.cat([best - part.log_softmax(-1).gather(1, at) for part, best, at in parts])


def as_words(x: Tensor) -> Tensor:
    """fp32 as int64, by its bits."""
    return x.view(torch.int32).to(torch.int64)


def as_numbers(words: Ints) -> npt.NDArray[np.float32]:
    """The host's way back from ``as_words``."""
    return words.astype(np.int32).view(np.float32)


def to_messages(words: Ints, wanted: list[int]) -> list[api.TokenLogprobs]:
    """Of rows as :meth:`ModelLogprobs.words` lays them out; ``wanted``: how many top ones each row wants."""
    most = words.shape[1] // 2
    chosen, top = as_numbers(words[:, 0]).tolist(), as_numbers(words[:, 1 + most :]).tolist()
    ids = words[:, 1 : 1 + most].tolist()
    return [
        api.TokenLogprobs(logprob=chosen[row], top_ids=ids[row][:count], top_logprobs=top[row][:count])
        for row, count in enumerate(wanted)
    ]
