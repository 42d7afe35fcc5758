"""The check of a request's data against the model, before it becomes tensors. The slot table calls it.

Gateways and the scheduler check all of this. Data that comes through nevertheless (from a gateway of another
version, or from another program that writes to the inbox) would be an index beyond a table, which stops the
rank and with it all streams, or a number that spoils the row. Such a request is run as a stand-in that cannot
be sampled: its row fails like one whose logits are NaN, on every rank alike, and the step goes on.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from albireo.contract.bounds import id_faults, sampling_faults
from albireo.contract.plan import Admission, SamplingParams

_NOTHING = SamplingParams(max_tokens=1, seed=0, temperature=0.0, allowed_ids=(0,), bad_ids=(0,))
"""Leaves no token to choose, which the sampler marks as failed."""


def fault_of(admission: Admission, vocab_size: int) -> str:
    """What is wrong with a request, by the name of its field; empty for one that can be run."""
    faults = chain(
        id_faults("prompt", admission.tokens, vocab_size), sampling_faults(admission.sampling, vocab_size)
    )
    return next(faults, "")


def stand_in(admission: Admission, vocab_size: int) -> Admission:
    """The same request as one whose row fails. Ids that exist stay, so that blocks which others may share
    through the prefix cache hold what their hashes say."""
    tokens = tuple(token if 0 <= token < vocab_size else 0 for token in admission.tokens)
    return replace(admission, tokens=tokens, sampling=_NOTHING)
