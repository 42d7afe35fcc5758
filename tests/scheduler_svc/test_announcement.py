"""What groups announce is checked, they get names of their own, and share one description of the model."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.contract.plan import GroupShape
from albireo.contract.tiers import TierShape
from albireo.v1 import log_pb2 as log
from scheduler_svc.announcement import BadAnnouncement, free_name, group_info, served_model, shape

GOOD = log.GroupInfo(
    incarnation="0a", num_blocks=8, max_seqs=4, max_model_len=128, tp=2, vocab_size=100, fingerprint="f"
)


def announced(**fields: object) -> bytes:
    info = log.GroupInfo()
    info.CopyFrom(GOOD)
    for name, value in fields.items():
        setattr(info, name, value)
    return info.SerializeToString()


def test_a_good_announcement_is_taken() -> None:
    assert group_info("0a", announced()) == GOOD


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"incarnation": "0b"}, "another incarnation, '0b'"),
        ({"name": "a name"}, "name: 'a name'"),
        ({"name": "x" * 33}, "name: "),
        ({"num_blocks": 0}, "num_blocks: 0"),
        ({"max_seqs": 10**6}, "max_seqs: 1000000"),
        ({"tp": 0}, "tp: 0"),
        ({"tp": 5000}, "tp: 5000"),
        ({"vocab_size": 0}, "vocab_size: 0"),
        ({"step_seconds": float("nan")}, "step_seconds: nan"),
        ({"prefill_token_seconds": -1.0}, "prefill_token_seconds: -1"),
        ({"num_layers": 5000}, "num_layers: 5000"),
    ],
)
def test_a_bad_one_is_refused_in_one_line(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(BadAnnouncement, match=problem) as caught:
        group_info("0a", announced(**fields))
    assert "\n" not in str(caught.value)


def tier(**fields: Any) -> log.Tier:
    good = {"name": "disk", "frames": 100, "read_block_seconds": 1e-4, "write_block_seconds": 2e-4}
    return log.Tier(**{**good, **fields})


def with_tiers(*tiers: log.Tier) -> bytes:
    info = log.GroupInfo.FromString(announced())
    info.tiers.extend(tiers)
    return info.SerializeToString()


def test_tiers_are_part_of_the_shape() -> None:
    info = group_info("0a", with_tiers(tier(name="host", frames=1 << 24, read_block_seconds=0.0), tier()))
    assert shape(info) == GroupShape(
        8, 4, 128, (TierShape("host", 1 << 24, 0.0, 2e-4), TierShape("disk", 100, 1e-4, 2e-4))
    )
    assert shape(GOOD) == GroupShape(8, 4, 128)


@pytest.mark.parametrize(
    ("tiers", "problem"),
    [
        ([tier(name=f"t{n}") for n in range(5)], "tiers: 5; at most 4"),
        ([tier(), tier()], "not all different"),
        ([tier(name="")], "the name ''"),
        ([tier(name="a b")], "the name 'a b'"),
        ([tier(frames=0)], "disk: frames: 0"),
        ([tier(frames=(1 << 24) + 1)], "disk: frames: 16777217"),
        ([tier(read_block_seconds=float("inf"))], "disk: read_block_seconds: inf"),
        ([tier(read_block_seconds=float("nan"))], "disk: read_block_seconds: nan"),
        ([tier(write_block_seconds=-1e-3)], "disk: write_block_seconds: -0.001"),
    ],
)
def test_bad_tiers_are_refused_in_one_line(tiers: list[log.Tier], problem: str) -> None:
    with pytest.raises(BadAnnouncement, match=problem) as caught:
        group_info("0a", with_tiers(*tiers))
    assert "\n" not in str(caught.value)


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(BadAnnouncement, match="cannot be read"):
        group_info("0a", b"\xff\xff")


def test_a_name_is_the_wanted_one_or_the_lowest_free_number() -> None:
    assert free_name("fast", {"g0"}) == "fast"
    assert free_name("fast", {"fast", "g0", "g2"}) == "g1"
    assert free_name("", set()) == "g0"


def test_the_model_has_the_longest_context_and_is_simulated_if_one_group_is() -> None:
    def info(max_model_len: int, device: str) -> log.GroupInfo:
        return log.GroupInfo(max_model_len=max_model_len, device=device, vocab_size=7)

    model = served_model([info(512, "sim"), info(128, "cpu")])
    assert (model.max_model_len, model.simulated, model.device, model.vocab_size) == (512, True, "cpu", 7)
    assert not served_model([info(128, "cpu")]).simulated
