"""A cost model from the physics of a device: bytes that are read, operations, collectives, launches.

:func:`worker_svc.cost.load.load_cost_model` makes it. The roofline model (Williams et al., 2009) with a
smooth joint of its two sides, and the ring's cost of an all-reduce (Thakur et al., 2005); see
``docs/decisions/0011-cost-model.md``.
"""

from __future__ import annotations

from worker_svc.cost.device import Device, HostPart, Variation, of_degree
from worker_svc.cost.interface import HostCost
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig


class PhysicalCost:
    """:class:`worker_svc.cost.interface.CostModel` of a model on ``tp`` devices."""

    def __init__(
        self, device: Device, config: ModelConfig, tp: int, *, dtype_bytes: int | None = None
    ) -> None:
        """Raises ValueError for a degree that the model's heads cannot be divided by, and for one above 1
        on devices without a link."""
        config.check_tp(tp)
        if tp > 1 and device.link is None:
            raise ValueError(f"device {device.name}: no link, so there is no TP degree of {tp}")
        self.device = device
        self.tp = tp
        self.shape = ModelShape(config, tp, dtype_bytes or device.dtype_bytes)
        self.efficiency = of_degree(device.efficiency, tp)
        self._sampling = of_degree(device.sampling, tp)
        self._host = of_degree(device.host, tp)
        self._bandwidth = device.gb_per_second * 1e9
        self._operations = device.tflops * 1e12
        self._link = device.link.gb_per_second * 1e9 * self.efficiency.link if device.link else 0.0

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def variation(self) -> Variation:
        return of_degree(self.device.variation, self.tp)

    def forward_terms(self, work: StepWork) -> dict[str, float]:
        """T3 by what it is spent on, in seconds; empty for a step without rows. The terms add up.

        ``weights`` is the time to read them, ``multiplications`` what these add to it.
        """
        if work.spans:
            return self._terms_of_parts(work)
        if not work.rows:
            return {}
        e, shape = self.efficiency, self.shape
        weights, products = self._matrices(work)
        joined = _join(weights, products, e.overlap)
        pairs = work.prefill_pairs * shape.pair_operations
        return {
            "weights": weights,
            "multiplications": joined - weights,
            "kv": work.context * shape.kv_token_bytes / (self._bandwidth * e.kv),
            "prefill attention": pairs / (self._operations * e.attention),
            "collectives": self._all_reduces(work.rows),
            "launch": (shape.config.num_layers * e.layer_us + e.step_us) * 1e-6,
        }

    def _terms_of_parts(self, work: StepWork) -> dict[str, float]:
        found: dict[str, float] = {}
        for share, part in work.parts():
            for term, seconds in self.forward_terms(part).items():
                found[term] = found.get(term, 0.0) + share * seconds
        return found

    def forward_seconds(self, work: StepWork) -> float:
        return sum(self.forward_terms(work).values())

    def sampling_terms(self, work: StepWork, *, parallel: bool) -> dict[str, float]:
        """T4 by what it is spent on, in seconds; empty for a step that samples nothing. The terms add up."""
        if not work.samples:
            return {}
        s, parallel = self._sampling, parallel and self.tp > 1
        rows = -(-work.samples // self.tp) if parallel else work.samples  # of the rank that has the most
        logits = self.shape.config.vocab_size
        kinds = ((work.greedy, s.greedy), (work.drawn, s.drawn), (work.penalized, s.penalized))
        each = sum(count * (cost.row_us * 1e-6 + cost.logit_ns * logits * 1e-9) for count, cost in kinds)
        fixed = s.fixed_us + sum(cost.fixed_us for count, cost in kinds if count)
        terms = {"sampling": fixed * 1e-6 + each * rows / work.samples}
        if self.tp > 1:
            exchange = s.parallel_us if parallel else s.driver_us
            # A rank that samples receives the columns of its rows that the other ranks have.
            received = rows * (self.tp - 1) * self.shape.vocabulary * self.shape.dtype_bytes
            terms["exchange"] = exchange * 1e-6 + received / (self._link * s.link)
        return terms

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return sum(self.sampling_terms(work, parallel=parallel).values())

    def host(self, work: StepWork) -> HostCost:
        h, staged = self._host, work.rows - work.decodes
        return HostCost(
            t1=_host_seconds(h.t1, work.decodes, staged),
            t2=_host_seconds(h.t2, work.decodes, staged),
            t5=_host_seconds(h.t5, work.samples, work.prefill),
        )

    def _matrices(self, work: StepWork) -> tuple[float, float]:
        """Seconds to read the matrices and to multiply with them. The LM head runs for sampled rows only."""
        shape, e = self.shape, self.efficiency
        read = shape.layer_parameters + (shape.head_parameters if work.samples else 0)
        products = shape.layer_parameters * work.rows + shape.head_parameters * work.samples
        return (
            read * shape.dtype_bytes / (self._bandwidth * e.weights),
            2 * products / (self._operations * e.compute),
        )

    def _all_reduces(self, rows: int) -> float:
        """Two a layer and one of the embedding, of the hidden states of ``rows``."""
        if self.tp == 1:
            return 0.0
        config = self.shape.config
        sent = 2 * (self.tp - 1) / self.tp * rows * config.hidden_size * self.shape.dtype_bytes
        each = self.efficiency.all_reduce_us * 1e-6 + sent / self._link
        return (2 * config.num_layers + 1) * each


def _join(first: float, second: float, power: float) -> float:
    """The norm of two durations that overlap: their sum at a power of 1, the larger at a large one."""
    larger = max(first, second)
    if not larger:
        return 0.0
    scaled: float = (first / larger) ** power + (second / larger) ** power
    return larger * float(scaled ** (1 / power))


def _host_seconds(part: HostPart, rows: int, prefill_tokens: int) -> float:
    return (part.fixed_us + rows * part.row_us + prefill_tokens * part.prefill_token_us) * 1e-6
