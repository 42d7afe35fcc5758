"""The H100 with the paper's software, fitted to one row of the paper: Qwen2.5-32B at t = 4.

Four figures are fitted: one factor on all efficiencies of the forward (T3), one on sampling with penalties
(T4), and the host's time per row, in parts (T1 and T2 as the paper has them, and the rest of the period).
Everything else is the preset's.
"""

from __future__ import annotations

from bench.paper import data
from bench.paper.case import Case, Lengths
from worker_svc.cost.device import Device, Efficiency, HostPart, HostTimes, RowCost, SamplingCost, of_degree

FITTED = ("weights", "kv", "compute", "attention")
"""Efficiencies that the factor applies to. What links and launches take stays as it is."""


def calibrated(base: Device, lengths: Lengths) -> Device:
    """``base`` with the efficiencies of the calibrated row, and the host of the paper's synchronous mode."""
    row = data.CALIBRATED
    case, work = Case(row.model, row.tp, "full", data.IN_FLIGHT), lengths.mean_step(data.IN_FLIGHT)
    sampled = case.cost(base).sampling_terms(work, parallel=False)
    wanted = data.T4_MS / 1e3 - sum(sampled.values()) + sampled["sampling"]
    device = base.model_copy(
        update={
            "sampling": (_sampling(of_degree(base.sampling, row.tp), wanted / sampled["sampling"]),),
            "host": (_host(row),),
        }
    )
    terms = case.cost(device).forward_terms(work)
    fixed = terms["collectives"] + terms["launch"]
    factor = (sum(terms.values()) - fixed) / (data.T3_MS / 1e3 - fixed)
    return device.model_copy(update={"efficiency": (_scaled(of_degree(base.efficiency, row.tp), factor),)})


def _scaled(efficiency: Efficiency, factor: float) -> Efficiency:
    return efficiency.model_copy(
        update={"tp": 1} | {name: getattr(efficiency, name) * factor for name in FITTED}
    )


def _sampling(cost: SamplingCost, factor: float) -> SamplingCost:
    """The fixed part belongs to what the factor is of."""
    penalized = RowCost(row_us=cost.penalized.row_us * factor, logit_ns=cost.penalized.logit_ns * factor)
    return cost.model_copy(update={"tp": 1, "fixed_us": cost.fixed_us * factor, "penalized": penalized})


def _host(row: data.Row) -> HostTimes:
    """In proportion to the rows. T5 has what the paper's table leaves of the synchronous period."""
    period = data.IN_FLIGHT / row.throughput["synchronous"]  # ms
    rest = period - data.T3_MS - data.T4_MS - data.T1_MS - data.T2_MS
    t1, t2, t5 = (HostPart(row_us=ms * 1e3 / data.IN_FLIGHT) for ms in (data.T1_MS, data.T2_MS, rest))
    return HostTimes(tp=1, t1=t1, t2=t2, t5=t5)
