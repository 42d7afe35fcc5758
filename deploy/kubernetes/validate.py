"""Checks rendered manifests against Kubernetes' own schemas, offline: `make check-kubernetes`.

    python deploy/kubernetes/validate.py deploy/kubernetes/overlays/cpu deploy/kubernetes/overlays/gpu

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
LEADER_WORKER_SET = json.loads(Path(__file__).with_name("leaderworkerset.schema.json").read_text())


def render(overlay: str) -> list[dict[str, Any]]:
    """Every manifest of an overlay. Raises CalledProcessError; kubectl has said why."""
    done = subprocess.run(["kubectl", "kustomize", overlay], stdout=subprocess.PIPE, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with one manifest, a line each."""
    if manifest["kind"] != "LeaderWorkerSet":
        return _by_kubernetes(manifest)
    found = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(LEADER_WORKER_SET).iter_errors(manifest)
    ]
    template = manifest["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "worker"}, "template": template}
    return [*found, *_by_kubernetes(pod)]


def _by_kubernetes(manifest: dict[str, Any]) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def main() -> int:
    bad = 0
    for overlay in sys.argv[1:]:
        for manifest in render(overlay):
            name = f"{overlay}: {manifest['kind']} {manifest['metadata']['name']}"
            found = problems(manifest)
            bad += len(found)
            print("\n".join(f"{name}: {problem}" for problem in found) or f"{name}: valid")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
