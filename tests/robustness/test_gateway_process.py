"""A real gateway process on a checkpoint: no torch in it, and generation_config.json in force or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import grpc
import pytest

from albireo.checkpoint.fingerprint import fingerprint
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2_grpc
from albireo.v1 import inference_pb2 as api
from tests.gateway.conftest import Backend
from tests.robustness.checkpoints_made import checkpoint

SAMPLING = {"do_sample": True, "temperature": 0.5, "top_k": 7, "max_new_tokens": 9, "top_p": 2}


@contextmanager
def gateway(url: str, model: Path, **variables: str) -> Iterator[tuple[int, str, str]]:
    """Its process id, address and what it logged until it served."""
    command = [sys.executable, "-m", "albireo.cli", "gateway", "--model", str(model), "--model-name", "tiny"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--redis-url", url],
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    timer = Timer(60, process.kill)
    timer.start()
    try:
        lines, address = [], ""
        for line in process.stderr:
            lines.append(line)
            if "listening on " in line:
                address = line.split()[-1]
            if address and any(line.endswith("model tiny: serving\n") for line in lines):
                break
        else:
            pytest.fail("".join(lines))
        yield process.pid, address, "".join(lines)
    finally:
        timer.cancel()
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("option", ["auto", "none"])
def test_a_gateway_takes_the_checkpoints_sampling_and_no_torch(
    option: str, tmp_path: Path, backend: Backend
) -> None:
    model = checkpoint(tmp_path / "a name with spaces", generation_config__json=SAMPLING)
    backend.announce_model(fingerprint=fingerprint(model))
    with gateway(backend.url, model, ALBIREO_GATEWAY_GENERATION_CONFIG=option) as (pid, address, logged):
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
        with grpc.insecure_channel(address) as channel:
            inference = inference_pb2_grpc.InferenceStub(channel)
            for sampling in (api.SamplingOptions(), api.SamplingOptions(temperature=1, top_k=0)):
                request = api.GenerateRequest(text="Hi", sampling=sampling)
                call = inference.Generate(request, timeout=20, wait_for_ready=True)
                assert next(call).HasField("accepted")
                call.cancel()
            info = control_pb2_grpc.ControlStub(channel).GetModelInfo(control_pb2.GetModelInfoRequest())
    submitted = [entry.sampling for entry in backend.inbox() if not isinstance(entry, str)]
    values = [(s.temperature, s.top_k, s.max_tokens, s.top_p) for s in submitted]
    warned = "generation_config.json: top_p: 2; must be 0 to 1; ignored" in logged
    assert warned == (option == "auto")
    if warned:
        assert values == [(0.5, 7, 9, 1), (1, 0, 9, 1)]
        assert info.default_sampling == api.SamplingOptions(temperature=0.5, top_k=7, max_tokens=9)
    else:
        assert values == [(1, 0, 256, 1)] * 2
        assert not info.default_sampling.ListFields()
