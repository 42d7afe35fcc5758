"""Frames, drawn from views that are made up."""

from __future__ import annotations

import dataclasses
import io
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from albireo.tools.top.collector import View
from albireo.tools.top.groups import MOST_GROUPS
from albireo.tools.top.picture import svg
from albireo.tools.top.recent import RecentSteps
from albireo.tools.top.screen import Screen, sparkline
from albireo.tools.top.tier_rates import Blocks
from albireo.tools.top.tiers import MOST_TIERS
from albireo.v1 import control_pb2 as control
from tests.step_records import overlapped


def group(name: str, device: str, *, tp: int = 1, running: int = 4, beat: float = 0.1) -> control.GroupLoad:
    """Its first rank computes, the others wait. ``beat``: the age of the first rank's heartbeat."""
    ranks = [control.Rank(stage="computing", seconds=beat - 1, beat_seconds=beat)]
    ranks += [control.Rank(rank=rank, stage="waiting", seconds=60, beat_seconds=0.2) for rank in range(1, tp)]
    return control.GroupLoad(
        name=name,
        device=device,
        tp=tp,
        running=running,
        slots_total=32,
        slots_free=32 - running,
        blocks_total=500,
        blocks_free=375,
        step_seconds=0.02,
        ranks=ranks,
    )


def view(*, device: str = "cpu", problem: str = "") -> View:
    recent = RecentSteps(0.0)
    for index, step in enumerate(overlapped(range(1, 201))):
        step.group = "fast"
        step.wasted_rows = 1 if step.step % 100 == 0 else 0
        recent.push(step, index / 100)
        if index % 20 == 19:
            recent.sample(index / 100 + 0.01)
    load = control.Load(
        epoch=7,
        waiting=5,
        steps_in_flight=2,
        slots_total=64,
        slots_free=48,
        blocks_total=1000,
        blocks_free=750,
        blocks_cached=333,
        preemptions=9,
        prefix_hit_tokens=30,
        prompt_tokens=120,
        wasted_rows=11,
        groups=[group("fast", "cuda", tp=2), group("cpu", "cpu", running=12, beat=2.5)],
        wait_seconds=0.3,
    )
    model = control.ModelInfo(
        model="tiny", architecture="LlamaForCausalLM", tp=2, device=device, dtype="float32"
    )
    server = control.ServerInfo(version="1.2.3", max_queue=1024)
    return View("gw:50051", server, model, load, recent.figures(2.0), {}, problem)


def printed(found: View, width: int, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, legacy_windows=False).print(Screen(found))
    file.flush()
    return raw.getvalue().decode(encoding).splitlines()


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).replace("│", " ").replace("|", " ").split())


@pytest.mark.parametrize("width", [120, 80])
def test_a_frame_shows_everything(width: int) -> None:
    lines = printed(view(), width)
    text = words(lines)
    for part in (
        "albireo 1.2.3 at gw:50051",
        "tiny LlamaForCausalLM, tp 2, cpu, float32",
        "epoch 7, 2 groups, expected wait for a slot 0.3 s",
        "5 / 1024",
        "16 / 64",
        "250 / 1000",
        "333 / 1000",
        "2 steps in flight",
        "prefix hits 25%",
        "9 preemptions",
        "11 wasted rows",
        "100.0 steps/s, batch 8, look-ahead 1, 2 wasted rows",
        "T1 schedule 0.80 / 0.80 0.00 / 0.00",
        "T2 input 1.00 / 1.00 0.10 / 0.10",
        "T3 forward 8.00 / 8.00 8.00 / 8.00",
        "T4 sampling 1.90 / 1.90 1.90 / 1.90",
        "T5 output 0.60 / 0.60 0.00 / 0.00",
        "T1 + T2 + T5 0.10 / 0.10",
        "period 10.00 / 10.00",
        "plan age 0.20 / 0.20",
        "output 800 ██████████",
        "fast cuda, tp 2 4 / 32 800 20.0 1 computing, 1 waiting 0.2 s",
        "cpu cpu, tp 1 12 / 32 0 20.0 1 computing for 1.5 s 2.5 s",
    ):
        assert all(word in text for word in part.split(" ")), part
        if width == 80:  # panels next to each other share lines
            assert part in text
    assert "SIMULATED" not in text
    assert "unavailable" not in text


@pytest.mark.parametrize("width", [40, 56, 80, 99, 100, 200])
def test_a_frame_fits_its_terminal(width: int) -> None:
    lines = printed(view(device="sim"), width)
    assert max(map(len, lines)) == width
    assert not any("…" in line for line in lines)  # what rich writes where it cuts
    assert ("p99" in words(lines)) == (width >= 56)


def test_a_simulated_device_is_labelled() -> None:
    assert "SIMULATED" in words(printed(view(device="sim"), 80))


def test_a_problem_is_told_beside_what_is_known() -> None:
    known = view(problem="UNAVAILABLE: no scheduler is alive")
    text = words(printed(dataclasses.replace(known, load=None), 80))
    assert "unavailable: UNAVAILABLE: no scheduler is alive" in text
    assert "tiny LlamaForCausalLM" in text
    assert "5 / 1024" not in text


def test_nothing_known_yet_is_a_frame_too() -> None:
    empty = View("gw:1", None, None, None, RecentSteps(0.0).figures(0.0), {}, "")
    assert "connecting" in words(printed(empty, 80))


def test_a_lost_group_and_a_broken_ledger_are_seen() -> None:
    found = view()
    assert found.load is not None
    del found.load.groups[:]
    found.load.wait_seconds = -1
    found.load.integrity_violations.append("slot 3 is owned twice")
    text = words(printed(found, 120))
    assert "no group, expected wait for a slot not known" in text
    assert "1 integrity violations: slot 3 is owned twice" in text


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = "\n".join(printed(view(), 80, "ascii"))
    assert "#" in text
    assert "output      800 ##########" in text


@pytest.mark.parametrize(
    ("values", "expected"), [([], ""), ([0, 0], "▁▁"), ([0, 50, 100], "▁▅█"), ([1, 99.9, 100], "▁██")]
)
def test_a_sparkline_is_relative_to_its_largest_value(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_bars_are_full_and_empty_only_where_they_are() -> None:
    found = view()
    assert found.load is not None
    found.load.slots_free, found.load.blocks_free, found.load.waiting = 1, 0, 1024
    bars = {line.split()[1]: line for line in printed(found, 80) if "░" in line or "██" in line}
    assert "░█" not in bars["running"]
    assert bars["running"].count("░") == 1
    assert "░" not in bars["waiting"]


def test_a_picture_is_an_svg_that_loads_nothing() -> None:
    picture = svg(view())
    ET.fromstring(picture)
    assert "@font-face" not in picture
    assert "url(http" not in picture
    assert "T1" in picture


def test_those_who_wait_most_are_named_where_there_are_several() -> None:
    found = view()
    assert found.load is not None
    found.load.waiting_by_tenant.update({"default": 5})
    assert "waiting most" not in words(printed(found, 120))
    found.load.waiting_by_tenant.update({"a": 1, "b": 9, "c": 2, "d": 3})
    assert "waiting most: b 9, default 5, d 3, c 2 " in words(printed(found, 120))


def test_each_group_has_a_line_those_with_a_silent_rank_first() -> None:
    found = view()
    assert found.load is not None
    del found.load.groups[:]
    found.load.groups.extend(group(f"g{number}", "cpu") for number in range(MOST_GROUPS + 5))
    found.load.groups[-1].CopyFrom(group("stopped", "cpu", beat=4.0))
    lines = printed(found, 120)
    names = [line.split()[1] for line in lines if "cpu, tp 1 " in line and "float32" not in line]
    assert names == ["stopped", *(f"g{number}" for number in range(MOST_GROUPS - 1))]
    assert "and 5 more groups" in words(lines)


def test_a_name_of_a_group_is_no_markup() -> None:
    found = view()
    assert found.load is not None
    found.load.groups[0].name = "[red]"
    assert "[red]" in words(printed(found, 120))


def tier(name: str, used: int = 40) -> control.TierLoad:
    return control.TierLoad(
        name=name,
        frames_total=4096,
        frames_used=used,
        blocks_fetched=70,
        frames_lost=3,
        fetches_failed=2,
        prefix_hit_tokens=12345,
    )


def with_tiers(waits: float = 0.0125) -> View:
    """The group that is called cpu has two tiers; nothing is known yet of how fast the second one is used."""
    found = view()
    assert found.load is not None
    found.load.groups[1].incarnation = "0b"
    found.load.groups[1].tiers.extend([tier("host"), tier("disk", 4000)])
    steps = dataclasses.replace(found.steps, group_waits={"cpu": waits})
    return dataclasses.replace(found, steps=steps, tier_rates={("0b", "host"): Blocks(12.4, 3)})


def test_each_kv_tier_has_a_line_where_there_are_any() -> None:
    assert "KV tier" not in words(printed(view(), 120))
    text = words(printed(with_tiers(), 120))
    assert "fetched/s spilled/s streamed hit tokens failed lost waits" in text
    assert "cpu host 40 / 4096 12 3 -- 12345 2 3 1.2%" in text
    assert "cpu disk 4000 / 4096 -- -- -- 12345 2 3 1.2%" in text


def test_what_is_streamed_from_a_tier_is_next_to_what_is_fetched() -> None:
    found = with_tiers()
    assert found.load is not None
    found.load.groups[1].streamed = 2
    steps = dataclasses.replace(found.steps, streamed={("cpu", "disk"): 345.6e6, ("fast", "disk"): 1e9})
    text = words(printed(dataclasses.replace(found, steps=steps), 120))
    assert "cpu host 40 / 4096 12 3 0 MB/s for 2 12345" in text
    assert "cpu disk 4000 / 4096 -- -- 346 MB/s for 2 12345" in text


@pytest.mark.parametrize("width", [40, 56, 64, 80, 99, 200])
def test_tiers_fit_their_terminal(width: int) -> None:
    lines = printed(with_tiers(), width)
    assert max(map(len, lines)) == width
    assert not any("…" in line for line in lines)
    text = words(lines)
    assert "cpu disk 4000 / 4096" in text
    assert ("1.2%" in text) == (width >= 50)
    assert ("fetched/s" in text) == (width >= 54)


def test_tiers_of_many_groups_are_those_of_the_ones_that_wait_first() -> None:
    found = with_tiers()
    assert found.load is not None
    for number in range(MOST_TIERS):
        found.load.groups.add(name=f"g{number}", incarnation=str(number), tiers=[tier("disk")])
    lines = printed(found, 120)
    shown = [line.split()[1] for line in lines if " / 4096 " in line]
    assert shown == ["cpu", "cpu", *(f"g{number}" for number in range(MOST_TIERS - 2))]
    assert "and 2 more tiers" in words(lines)
