"""Which work of the simulated device runs when, by seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Policy:
    """Draws of one run. Equal seeds draw equally, as long as threads take turns in the same order.

    Some seeds let nothing run before it must, some run everything at once; some keep one stream far behind
    the others, some far ahead.
    """

    seed: int
    progress: float = field(init=False)
    """How probable it is that the device does something when something is launched."""
    least: bool = field(init=False)
    """Whether a wait lets nothing run that it does not wait for."""
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.progress = self.random.choice((0.0, 0.05, 0.3, 1.0))
        self.least = self.random.random() < 0.5

    def weight(self) -> float:
        """Of a new stream: how probable it is, against others, that its next work runs first."""
        return self.random.choice((0.001, 1.0, 1000.0))

    def burst(self) -> int:
        """How much work runs now that something has been launched."""
        return self.random.randrange(1, 12) if self.random.random() < self.progress else 0

    def choose(self, weights: list[float]) -> int:
        """Index of what runs next."""
        return self.random.choices(range(len(weights)), weights)[0]

    def rubbish(self) -> int:
        """A byte that freed memory is filled with: NaN or large numbers, -1 or huge ids."""
        return self.random.choice((0xFF, 0x7F))
