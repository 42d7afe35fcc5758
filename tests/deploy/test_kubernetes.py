"""The manifests against the settings of the services, and against one another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from albireo.telemetry.catalogue import METRICS
from tests.deploy.launch import RANK, kill_after
from tests.deploy.observability.served import metric_names, series_names, unknown_labels
from tests.deploy.settings import ALL, variables

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
FILES = sorted(KUBERNETES.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_a_manifest_is_yaml_and_names_settings_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))
    named = set(re.findall(r"\b(ALBIREO_[A-Z_]+)=", text))
    assert named <= set(ALL)


def pod_specs(manifest: Any) -> Iterator[dict[str, Any]]:
    """Pod specs anywhere in a manifest."""
    if isinstance(manifest, dict):
        if "containers" in manifest:
            yield manifest
        for value in manifest.values():
            yield from pod_specs(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from pod_specs(value)


def documents(*path: str) -> list[Any]:
    return list(yaml.safe_load_all(KUBERNETES.joinpath(*path).read_text(encoding="utf-8")))


def worker() -> dict[str, Any]:
    """The pod of a worker group."""
    [manifest] = documents("base", "worker.yaml")
    [spec] = pod_specs(manifest)
    return spec


def test_a_group_is_started_as_in_compose_and_has_more_time_to_stop_than_its_ranks() -> None:
    compose = yaml.safe_load((KUBERNETES.parent / "docker-compose.yml").read_text(encoding="utf-8"))
    started = compose["services"]["worker"]["command"]
    spec = worker()
    [container] = spec["containers"]
    last = started.index("--no-python")
    assert started[-len(RANK) :] == RANK
    assert container["args"][-len(started[last:]) :] == started[last:]
    assert spec["terminationGracePeriodSeconds"] > kill_after(started)


def test_every_group_has_a_name_of_its_own_that_a_worker_accepts() -> None:
    [container] = worker()["containers"]
    values = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    names = {values["ALBIREO_GROUP"].replace("$(GROUP_INDEX)", str(index)) for index in range(200)}
    assert len(names) == 200
    [pattern] = [
        rule.pattern for rule in variables("worker")["ALBIREO_GROUP"].metadata if hasattr(rule, "pattern")
    ]
    assert all(re.fullmatch(pattern, name) for name in names)
    # The second of the two refers to the first.
    assert list(values).index("GROUP_INDEX") < list(values).index("ALBIREO_GROUP")


def scaling_queries() -> list[str]:
    [scaled] = documents("scaling", "keda", "scaledobject.yaml")
    [adapter] = documents("prometheus-adapter.yaml")
    rules = adapter["rules"]["external"]
    return [
        *[trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]],
        *[rule["metricsQuery"] for rule in rules],
        *[rule["seriesQuery"] for rule in rules],
    ]


@pytest.mark.parametrize("query", scaling_queries())
def test_autoscalers_ask_for_what_is_served(query: str) -> None:
    served = {series for metric in METRICS for series in series_names(metric)}
    assert metric_names(query) <= served
    assert metric_names(query) or "<<.Series>>" in query
    assert not unknown_labels(query)


def test_an_external_metric_of_an_autoscaler_has_a_rule_of_the_adapter() -> None:
    [adapter] = documents("prometheus-adapter.yaml")
    rules = adapter["rules"]["external"]
    scalers = [
        *documents("base", "gateway.yaml"),
        *documents("scaling", "hpa", "horizontalpodautoscaler.yaml"),
    ]
    names = {
        metric["external"]["metric"]["name"]
        for manifest in scalers
        for metric in manifest["spec"].get("metrics", ())
        if metric["type"] == "External"
    }
    assert len(names) == 4
    assert names == {rule["name"]["as"] if "name" in rule else rule["seriesQuery"] for rule in rules}


def test_no_group_is_left_where_nothing_is_asked_and_one_comes_back_for_a_request_that_waits() -> None:
    [scaled] = documents("scaling", "keda", "scaledobject.yaml")
    spec = scaled["spec"]
    assert spec["minReplicaCount"] == 0
    waiting = {trigger["name"]: trigger["metadata"] for trigger in spec["triggers"]}["waiting"]
    assert "albireo_scheduler_waiting" in waiting["query"]
    assert float(waiting["activationThreshold"]) < 1
    assert float(waiting["threshold"]) >= variables("gateway")["ALBIREO_GATEWAY_MAX_QUEUE"].default


def test_the_claim_of_the_checkpoint_can_be_filled_and_read_from_all_machines() -> None:
    claim = yaml.safe_load((KUBERNETES / "overlays" / "gpu" / "model.yaml").read_text(encoding="utf-8"))
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="rendering needs kubectl")
@pytest.mark.parametrize(("scaling", "kind"), [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_a_scaling_component_leaves_the_number_of_groups_to_its_autoscaler(
    scaling: str, kind: str, tmp_path: Path
) -> None:
    def path(*parts: str) -> str:
        return os.path.relpath(KUBERNETES.joinpath(*parts), tmp_path.resolve())

    overlay = {"resources": [path("overlays", "cpu")], "components": [path("scaling", scaling)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    command = ["kubectl", "kustomize", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in yaml.safe_load_all(done.stdout)
    }
    target = found[kind, "worker"]["spec"]["scaleTargetRef"]
    group = found[target["kind"], target["name"]]
    assert group["apiVersion"] == target["apiVersion"]
    assert "replicas" not in group["spec"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="rendering needs kubectl")
@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_an_overlay_renders_to_locked_down_pods_that_share_the_settings(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    manifests = list(yaml.safe_load_all(done.stdout))
    kinds = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    assert {("LeaderWorkerSet", "worker"), ("Deployment", "gateway"), ("StatefulSet", "redis")} <= kinds
    assert "Secret" not in {kind for kind, _ in kinds}
    [settings] = [name for kind, name in kinds if kind == "ConfigMap"]
    specs = [spec for manifest in manifests for spec in pod_specs(manifest)]
    assert len(specs) == 4
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        [container] = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        if container["name"] != "redis":
            assert container["envFrom"] == [{"configMapRef": {"name": settings}}]
            assert ":" in container["image"], "no tag: an overlay's name of the image found nothing"
            volumes = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
