"""Log-probabilities of the model: natural logarithms, before any control.

The sampler computes them in the compute stage; ``to_messages`` belongs to the output stage.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from albireo.v1 import inference_pb2 as api
from worker_svc.buffers.arrays import Ints
from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.tiles import largest, rows_in_slices, slice_rows, tile_maxima


class ModelLogprobs:
    """Of some rows of logits. Made before controls change these, but for what they have of the ids chosen."""

    def __init__(self, logits: Tensor, rows: Tensor, most: int, scratch: ScratchBuffer) -> None:
        """``rows``, ascending, of ``logits``; ``most``: how many of the most likely ids each wants."""
        self._rows = rows
        self._most = most
        space = scratch.take((min(len(rows), slice_rows(logits)), logits.shape[1]), logits)
        maxima, chances = [], []
        for part in rows_in_slices(logits, rows):  # read once from memory, twice from a CPU's cache
            maxima.append(tile_maxima(part))
            # A softmax is one kernel that keeps its row in cache, and several times faster than a logsumexp.
            chances.append(torch.softmax(part, -1, out=space[: len(part)]).amax(-1, keepdim=True))
        tops = torch.cat(maxima)
        self._values, self._top = largest(logits, rows, tops, max(most, 1))
        # Of the most likely id, the chance is exp(logit - normalizer).
        self._normalizer = tops.amax(-1, keepdim=True) - torch.cat(chances).log_()
        self.known = self._normalizer.isfinite().squeeze(1)  # [rows]

    def words(self, logits: Tensor, ids: Tensor) -> Tensor:
        """``[rows, 1 + 2 * most]`` int64: of ``ids``, then the most likely ids, then theirs.

        ``logits``: as the model left them, if only at ``ids`` ``[all rows]``. Numbers are fp32 as their bits.
        """
        at = (self._rows, ids.index_select(0, self._rows).clamp_(min=0))
        chosen = as_words(logits[at].unsqueeze(1) - self._normalizer)
        if not self._most:
            return chosen
        return torch.cat([chosen, self._top, as_words(self._values - self._normalizer)], dim=1)


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
