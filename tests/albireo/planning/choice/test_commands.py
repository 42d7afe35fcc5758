"""What a plan ends with, against the real options, compose file and overlays."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from albireo.cli.commands import load_command
from albireo.local.settings import StackSettings
from albireo.planning.choice.commands import (
    compose_command,
    compose_groups,
    compose_settings,
    kubernetes_overlay,
    up_command,
)
from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import Split
from scheduler_svc.settings import SchedulerSettings
from tests.deploy.settings import ALL
from worker_svc.settings import WorkerSettings

DEPLOY = Path(__file__).resolve().parents[4] / "deploy"
SERVING = Serving(
    model=Path("/models/a model"),
    model_name="a-model",
    max_seqs=128,
    max_model_len=4096,
    max_num_batched_tokens=1024,
    prefill_chunk=256,
)
SYNCHRONOUS = replace(SERVING, synchronous=True, sampling="driver")
ON_CPUS = replace(SERVING, device="cpu", dtype="float32")


def parsed(command: str) -> tuple[dict[str, str], StackSettings]:
    """The variables of a command line, and its options as ``albireo up`` reads them."""
    words = shlex.split(command)
    start = words.index("albireo")
    assert words[start + 1] == "up"
    context = load_command("albireo.cli.up:up").make_context("up", words[start + 2 :])
    given = {name: value for name, value in context.params.items() if value is not None}
    return dict(word.split("=", 1) for word in words[:start]), StackSettings(**given)


@pytest.mark.parametrize("serving", [SERVING, SYNCHRONOUS, ON_CPUS])
def test_albireo_up_understands_the_command_and_the_services_its_variables(serving: Serving) -> None:
    variables, settings = parsed(up_command(Split(4, 1), serving))
    assert (settings.tp, settings.device, settings.model) == (4, serving.device, serving.model)
    assert settings.dtype == serving.dtype
    assert set(variables) <= set(ALL)


def test_all_groups_are_in_one_stack() -> None:
    _, settings = parsed(up_command(Split(2, 3), SERVING))
    assert (settings.groups, settings.tp) == (3, 2)
    assert "STACK_CPU_WORKERS=3\n" in compose_settings(Split(2, 3), ON_CPUS)
    assert compose_groups(Split(2, 3), ON_CPUS) == compose_groups(Split(2, 1), SERVING) == ""
    assert "groups.yml" in compose_command(Split(2, 3), SERVING)
    assert "groups.yml" not in compose_command(Split(2, 3), ON_CPUS)


def test_groups_of_the_compose_stack_share_no_gpus() -> None:
    services = yaml.safe_load(compose_groups(Split(2, 3), SERVING))["services"]
    devices = [service["environment"]["CUDA_VISIBLE_DEVICES"] for service in services.values()]
    assert devices == ["0,1", "2,3", "4,5"]
    base, *others = services
    stack = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
    assert base in stack["services"]
    assert not set(others) & set(stack["services"])
    for name in others:
        assert services[name]["extends"] == {"file": "docker-compose.yml", "service": base}


@pytest.mark.parametrize("serving", [SERVING, SYNCHRONOUS])
def test_the_settings_are_those_that_were_simulated(
    monkeypatch: pytest.MonkeyPatch, serving: Serving
) -> None:
    for name, value in serving.settings().items():
        monkeypatch.setenv(name, value)
    nothing: dict[str, Any] = {}  # all from the variables
    scheduler, worker = SchedulerSettings(**nothing), WorkerSettings(model=serving.model, **nothing)
    assert scheduler.max_num_seqs == worker.max_seqs == 128
    assert (scheduler.max_num_batched_tokens, scheduler.prefill_chunk) == (1024, 256)
    assert worker.max_model_len == 4096
    assert scheduler.synchronous is worker.synchronous is serving.synchronous
    assert worker.sampling == serving.sampling


def test_groups_on_cpus_name_no_gpus() -> None:
    makers = (up_command, compose_settings, compose_groups, compose_command, kubernetes_overlay)
    texts = [make(Split(2, 2), ON_CPUS) for make in makers]
    assert not [text for text in texts if "CUDA" in text or "gpu" in text]


@pytest.mark.parametrize("serving", [SERVING, SYNCHRONOUS, ON_CPUS])
@pytest.mark.parametrize("split", [Split(4, 1), Split(2, 4)])
def test_the_compose_stack_has_every_variable(split: Split, serving: Serving) -> None:
    example = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    known = set(re.findall(r"(?m)^#([A-Z_]+)=", example))
    text = compose_settings(split, serving)
    assert {line.split("=")[0] for line in text.splitlines()} <= known
    assert f"STACK_TP={split.tp}\n" in text


def test_the_gpu_group_of_the_compose_stack_gets_the_visible_devices() -> None:
    stack = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
    assert stack["services"]["worker-gpu"]["environment"]["CUDA_VISIBLE_DEVICES"] is None


def test_the_overlay_names_settings_that_there_are() -> None:
    overlay = yaml.safe_load(kubernetes_overlay(Split(4, 1), SYNCHRONOUS))
    literals = dict(line.split("=", 1) for line in overlay["configMapGenerator"][0]["literals"])
    assert set(literals) <= set(ALL)


def test_on_cpus_the_overlay_says_which_model_it_serves() -> None:
    note = "bundled model"
    assert note in kubernetes_overlay(Split(1, 1), ON_CPUS)
    assert note not in kubernetes_overlay(Split(1, 1), SERVING)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="rendering needs kubectl")
@pytest.mark.parametrize("serving", [SERVING, ON_CPUS])
@pytest.mark.parametrize("split", [Split(4, 1), Split(2, 4)])
def test_the_overlay_renders_to_the_groups_of_the_split(
    tmp_path: Path, split: Split, serving: Serving
) -> None:
    kubernetes = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", kubernetes)
    overlay = kubernetes / "overlays" / "plan"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(kubernetes_overlay(split, serving), encoding="utf-8")
    done = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=60, check=True
    )
    manifests: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    worker = manifests["LeaderWorkerSet"]
    [container] = worker["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"]
    assert {"name": "RANKS_PER_POD", "value": str(split.tp)} in container["env"]
    for kind in ("requests", "limits"):
        gpus = container["resources"][kind].get("nvidia.com/gpu")
        assert gpus == (str(split.tp) if serving.device == "cuda" else None)
    assert worker["spec"]["replicas"] == split.groups
    settings = manifests["ConfigMap"]
    assert settings["data"]["ALBIREO_WORKER_MAX_SEQS"] == "128"
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
