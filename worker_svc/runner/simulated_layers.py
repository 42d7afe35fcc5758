"""How the layers of a simulated step follow one another where they wait for KV.

Times are nanoseconds of any clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """What layers of streamed slots read, one after another, ahead of the layers."""

    begin: int
    layers: Sequence[int]  # how long it takes for each; 0: it reads nothing
    ahead: int  # so much of it can be there before a layer needs it


NO_READING = Reading(0, (), 0)


@dataclass(frozen=True, slots=True)
class LayerTimes:
    end: int
    waited: int  # for fetches
    stream_waited: int
    read: int  # when the reading has ended; where there is none, it means nothing


def run_layers(begin: int, forward: int, there: Sequence[int], reading: Reading = NO_READING) -> LayerTimes:
    """Layers begin at ``begin`` and compute for ``forward`` in all, each as long as the others.

    A layer begins when the one before has ended and its fetches are ``there``. While it computes, it attends
    to what is read for it: it ends when both is done. What is read ahead of the layers is bounded, and
    reading goes on as layers use it.
    """
    reads = reading.layers or (0,) * len(there)
    now, due, total, waited, stream_waited, ended = begin, 0, sum(reads), 0, 0, reading.begin
    read = min(total, reading.ahead, max(0, begin - reading.begin))
    if read == total:
        ended += total
    for layer, (at, seconds) in enumerate(zip(there, reads, strict=True)):
        computed = max(at, now) + forward * (layer + 1) // len(there) - forward * layer // len(there)
        waited += max(0, at - now)
        reads_on, due = max(now, reading.begin), due + seconds
        end = max(computed, reads_on + due - read) if seconds else computed
        stream_waited += end - computed
        before, read = read, min(total, due + reading.ahead, read + max(0, end - reads_on))
        if before < read == total:
            ended = min(end, reads_on + total - before)
        now = end
    return LayerTimes(now, waited, stream_waited, ended)
