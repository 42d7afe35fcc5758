"""What the report on overhead says of measured steps."""

from __future__ import annotations

import io

from rich.console import Console

from albireo.telemetry.step_times import KvWaits, step_times
from bench.overhead.measure import Measured
from bench.overhead.report import summarize, table
from tests.step_records import overlapped


def measured(waits: KvWaits) -> Measured:
    return Measured(step_times(overlapped(range(1, 9))), [], 1.0, False, waits)


def printed(*waits: KvWaits) -> str:
    modes = {f"mode {number}": summarize(measured(found)) for number, found in enumerate(waits)}
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(table(modes, "title", "caption"))
    return " ".join(console.export_text().split())


def test_a_run_without_waits_for_kv_says_nothing_of_them() -> None:
    found = summarize(measured(KvWaits(0, 0, 0)))
    assert found["kv_waits"] is None
    assert "waited for KV" not in printed(KvWaits(0, 0, 0))


def test_waits_for_kv_are_shown_where_there_were_some() -> None:
    waits = KvWaits(3, 0.004, 0.0125)
    assert summarize(measured(waits))["kv_waits"] == {"steps": 3, "seconds": 0.004, "share_of_t3": 0.0125}
    assert "layers waited for KV, of T3 of all steps │ -- │ │ 1.25%, in 3 steps" in printed(
        KvWaits(0, 0, 0), waits
    )
