"""Checks rendered manifests against Kubernetes' own schemas, offline: `make check-kubernetes`.

    python deploy/kubernetes/validate.py deploy/kubernetes/overlays/cpu deploy/kubernetes/scaling/keda

Needs kubectl, for its kustomize, and the package kubernetes-validate, which carries the schemas. Unknown
fields are errors.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.37"
SCHEMAS = {
    kind: json.loads(Path(__file__).with_name(f"{kind.lower()}.schema.json").read_text(encoding="utf-8"))
    for kind in ("LeaderWorkerSet", "ScaledObject")
}
"""Of the kinds that are not Kubernetes' own."""


def render(folder: str) -> list[dict[str, Any]]:
    """Every manifest of an overlay or a component. Raises CalledProcessError; kubectl has said why."""
    done = subprocess.run(["kubectl", "kustomize", folder], stdout=subprocess.PIPE, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with one manifest, a line each."""
    schema = SCHEMAS.get(manifest["kind"])
    if schema is None:
        return _by_kubernetes(manifest)
    found = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]
    return [*found, *_by_kubernetes(_within(manifest))]


def _within(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest of another kind contains of Kubernetes' own, as a manifest."""
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    if manifest["kind"] == "LeaderWorkerSet":
        template = spec["leaderWorkerTemplate"]["workerTemplate"]
        return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
    scaler = {
        "scaleTargetRef": spec["scaleTargetRef"],
        "maxReplicas": spec.get("maxReplicaCount", 100),
        "behavior": spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {}),
    }
    metadata = {"name": name}
    kind = "HorizontalPodAutoscaler"
    return {"apiVersion": "autoscaling/v2", "kind": kind, "metadata": metadata, "spec": scaler}


def _by_kubernetes(manifest: dict[str, Any]) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def main() -> int:
    bad = 0
    for folder in sys.argv[1:]:
        for manifest in render(folder):
            name = f"{folder}: {manifest['kind']} {manifest['metadata']['name']}"
            found = problems(manifest)
            bad += len(found)
            print("\n".join(f"{name}: {problem}" for problem in found) or f"{name}: valid")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
