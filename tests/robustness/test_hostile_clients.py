"""`python -m bench.hostile`, small and all at once: a whole stack, ordinary clients, four attacks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.hostile.__main__ import FAULTS, STEP, alive, attack
from bench.hostile.ordinary import OrdinaryClients
from tests.stack import running_stack

COUNTS = {"malformed": 300, "begins": 1400, "readers": 60, "storms": 200}
SECONDS = {"ALBIREO_GATEWAY_MESSAGE_SECONDS": "1", "ALBIREO_GATEWAY_WRITE_SECONDS": "1"}


@pytest.mark.slow
def test_ordinary_clients_are_served_during_attacks_and_no_tier_dies(tmp_path: Path) -> None:
    steps = tmp_path / "steps.toml"
    steps.write_text(STEP, encoding="utf-8")
    with running_stack(tmp_path, SECONDS, device="sim", cost_model=str(steps)) as running:

        async def all_at_once() -> tuple[OrdinaryClients, list[dict[str, int]]]:
            async with OrdinaryClients(running.stack.target, 4) as ordinary:
                attacks = [attack(name, running.stack.target, n, hold=3) for name, n in COUNTS.items()]
                return ordinary, await asyncio.gather(*attacks)

        before = alive(running.stack)
        ordinary, ends = asyncio.run(all_at_once())
        assert alive(running.stack) == before
        running.wait_idle()
    for name, statuses in zip(COUNTS, ends, strict=True):
        assert sum(statuses.values()) == COUNTS[name]
        assert not [fault for fault in FAULTS if statuses.get(fault)], name
    assert not any(ordinary.failures.values())
    assert len(ordinary.gaps["start"]) > 100
    assert ordinary.p99("start") < 1
    for log in tmp_path.glob("logs/*.log"):
        assert "Traceback" not in log.read_text(encoding="utf-8")
