"""The manifests against the settings of the services, and against one another."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.settings import ALL

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


def test_the_claim_of_the_checkpoint_can_be_filled_and_read_from_all_machines() -> None:
    claim = yaml.safe_load((KUBERNETES / "overlays" / "gpu" / "model.yaml").read_text(encoding="utf-8"))
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


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
