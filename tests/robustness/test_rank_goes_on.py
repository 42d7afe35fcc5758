"""A real rank, all its stages, under plans whose admissions nothing checked: each ends, the rank goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from albireo.contract.plan import Finish
from albireo.local.redis_server import LocalRedis
from tests.races.fake_scheduler import VOCAB, admit, rows_of, scripted_rank

BAD: list[dict[str, Any]] = [
    {"stop_ids": (VOCAB,), "min_tokens": 5},
    {"allowed_ids": (VOCAB,)},
    {"logit_bias": ((VOCAB, 1.0),)},
    {"temperature": float("nan")},
    {"logprobs": 10**6},
    {"prompt_logprobs": 10**6},
]


def test_requests_that_are_not_sane_end_with_an_error(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path / "redis")
    try:
        with scripted_rank(server.url, tmp_path, "rows", device="cpu") as (scheduler, rank):
            scheduler.wait_group(rank)
            scheduler.open_epoch()
            scheduler.publish(**admit(0, 1, 5, (0,), temperature=0.0))
            # 400 tokens from 2 on: the last 18 lie beyond the vocabulary of 384.
            scheduler.publish(**admit(1, 2, 400, tuple(range(1, 26))), num_decodes=1)
            for incarnation, sampling in enumerate(BAD, 3):
                released = (1,)
                fields = admit(1, incarnation, 5, (1,), **sampling)
                scheduler.publish(released=released, **fields, num_decodes=1)
            scheduler.decode(2, rows=2)
            results = scheduler.results()
            assert rank.process.poll() is None
    finally:
        server.stop()
    for incarnation in range(2, 3 + len(BAD)):
        assert [finish for _, finish in rows_of(results, incarnation)] == [Finish.ERROR]
    other_row = rows_of(results, 1)
    assert len(other_row) == 4 + len(BAD)
    assert {finish for _, finish in other_row} == {Finish.NONE}
