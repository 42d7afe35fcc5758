"""Gateway and ranks serve together only if they read the same checkpoint; its directory may have any name."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from albireo.checkpoint.files import CheckpointError
from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.plan import Finish
from albireo.local.stack import legal_name
from albireo.models import TINY
from albireo.runtime.kv_memory import KvMemory
from gateway.store.interface import Liveness
from gateway.store.redis_store import RedisGatewayStore
from tests.gateway.conftest import Backend, Served, eventually, request, serving
from tests.stack import ask, running_stack
from tests.stack import request as asked
from tests.worker_svc.oracle import CPU
from tests.worker_svc.ranks import run_group
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.formats import Formats
from worker_svc.runner.agreement import agree_on_checkpoint
from worker_svc.runner.model_runner import ModelRunner

OTHER = "0123456789abcdef"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_file_that_both_tiers_read_counts(copy: Path) -> None:
    same = fingerprint(TINY)
    assert fingerprint(copy) == same
    (copy / "model.safetensors").unlink()  # a gateway may have no weights
    assert fingerprint(copy) == same
    seen = {same}
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
        seen.add(fingerprint(copy))
    for name in ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"):
        (copy / name).write_text("{}")
        seen.add(fingerprint(copy))
    (copy / "tokenizer.json").unlink()
    seen.add(fingerprint(copy))
    assert len(seen) == 9


async def status_of(served: Served) -> int:
    check = health_pb2_grpc.HealthStub(served.channel).Check
    return int((await check(health_pb2.HealthCheckRequest())).status)


@pytest.mark.parametrize("announced", [OTHER, ""])
@pytest.mark.asyncio(loop_scope="session")
async def test_a_group_of_another_checkpoint_is_not_served(
    backend: Backend, announced: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.liveness.watch.WATCH_SECONDS", 0.01)
    checks, check = Counter[str](), RedisGatewayStore.check

    async def counted(store: RedisGatewayStore, ttl: float) -> Liveness:
        checks["done"] += 1
        return await check(store, ttl)

    monkeypatch.setattr(RedisGatewayStore, "check", counted)
    backend.announce_model(fingerprint=announced)
    with caplog.at_level(logging.ERROR):
        async with serving(backend) as served:
            await eventually(lambda: checks["done"] >= 4)  # several checks, one line
            assert await status_of(served) == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await served.inference.Generate(request()).read()
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            for part in (fingerprint(TINY), announced or "not announced", "worker group", "gateway"):
                assert part in str(refused.value.details())
            # gRPC's poller may log errors of loops that earlier tests have closed.
            ours = [record for record in caplog.records if record.name.startswith("gateway")]
            assert [record.getMessage() for record in ours] == [f"model tiny: {refused.value.details()}"]
            # The right one comes.
            backend.announce_model()
            await eventually(lambda: not served.at.served.mismatch)
            assert await status_of(served) == health_pb2.HealthCheckResponse.SERVING
            call = served.inference.Generate(request(request_id="again"))
            assert (await call.read()).HasField("accepted")
            call.cancel()


@pytest.mark.asyncio(loop_scope="session")
async def test_streams_that_such_a_group_took_before_it_was_seen_end(backend: Backend) -> None:
    async with serving(backend) as served:
        call = served.inference.Generate(request())
        assert (await call.read()).HasField("accepted")
        backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
        backend.announce_model(fingerprint=OTHER)
        await eventually(lambda: bool(served.at.served.mismatch))
        while not (last := await call.read()).HasField("error"):
            pass
        assert last.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert not last.error.retryable


@dataclass(frozen=True)
class Agree:
    """Every rank's answer, on rank 0; the ranks read one directory each."""

    directories: tuple[Path, ...]
    weights: bool = True
    formats: tuple[Formats, Formats] = (Formats(), Formats())

    def __call__(self, group: TPGroup) -> str:
        directory = self.directories[group.rank]
        try:
            formats = self.formats[group.rank]
            return agree_on_checkpoint(directory, group, CPU, weights=self.weights, formats=formats)
        except CheckpointError as error:
            return f"refused: {error}"


@dataclass(frozen=True)
class Blocks:
    """Ranks that were granted different memory: the number of blocks on rank 0."""

    def __call__(self, group: TPGroup) -> int:
        kv_memory = KvMemory((2 - group.rank) << 20)
        runner = ModelRunner(
            TINY,
            group,
            device=CPU,
            dtype=torch.bfloat16,
            kv_memory=kv_memory,
            max_seqs=4,
            max_model_len=1024,
        )
        return runner.shape.num_blocks


def test_ranks_agree_before_they_load(copy: Path, tmp_path: Path) -> None:
    again, cut = tmp_path / "again", tmp_path / "cut"
    shutil.copytree(TINY, again)
    shutil.copytree(TINY, cut)
    (copy / "tokenizer.json").write_bytes((copy / "tokenizer.json").read_bytes() + b" ")
    with (cut / "model.safetensors").open("ab") as file:
        file.write(b"0")
    jobs: dict[str, Callable[[TPGroup], Any]] = {
        "blocks": Blocks(),
        "same": Agree((TINY, again)),
        "tokenizer": Agree((TINY, copy)),
        "weights": Agree((TINY, cut)),
        "weights that are not read": Agree((TINY, cut), weights=False),
        "quantized by one": Agree((TINY, again), formats=(Formats("int8"), Formats())),
        "other 8 bits on one": Agree((TINY, again), formats=(Formats("int8"), Formats("fp8"))),
        "KV in int8 on one": Agree((TINY, again), formats=(Formats("int8", "int8"), Formats("int8"))),
    }
    found = run_group(2, jobs, tmp_path)
    assert found["blocks"] == 128  # what rank 1 has room for: half a model's 16 KiB in 1 MiB
    assert found["same"] == found["weights that are not read"] == fingerprint(TINY)
    assert found["KV in int8 on one"] == "refused: rank 0 and rank 1 have different --kv-dtype"
    for weights in ("quantized by one", "other 8 bits on one"):
        assert found[weights] == "refused: rank 0 and rank 1 have different --weights"
    assert found["tokenizer"].startswith(f"refused: {TINY}: rank 0 and rank 1 have different config or token")
    assert found["weights"].startswith(f"refused: {TINY}: rank 0 and rank 1 have different weights files")


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("tiny", "tiny"),
        ("My model (v2)", "My-model-v2"),
        ("it's “quoted”", "it-s-quoted"),
        ("модель", "model"),
        ("a" * 200, "a" * 128),
    ],
)
def test_a_models_name_is_derived_from_its_directory(directory: str, name: str) -> None:
    assert legal_name(directory) == name


@pytest.mark.slow
def test_a_directory_of_any_name_serves(tmp_path: Path) -> None:
    directory = tmp_path / "My model's “best” (v2)"
    shutil.copytree(TINY, directory)
    with running_stack(tmp_path / "data", model=directory, device="sim", cost_model="fast-5ms") as running:
        assert running.stack.model_name == "My-model-s-best-v2"
        assert ask(running, asked("Hi", max_tokens=4)).ids
