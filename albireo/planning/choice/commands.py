"""What runs a chosen split: a command of ``albireo up``, settings of the compose stack, a Kubernetes overlay.

``albireo plan`` ends with them. All groups are in one stack, led by one scheduler.
"""

from __future__ import annotations

import shlex

from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import Split

ENVIRONMENT_FILE = "albireo.env"
GROUPS_FILE = "groups.yml"


def up_command(split: Split, serving: Serving) -> str:
    """A command line."""
    variables = dict(serving.settings())
    arguments = ["albireo", "up", "--model", str(serving.model), "--device", serving.device]
    if split.groups > 1:
        arguments += ["--groups", str(split.groups)]
    arguments += ["--tp", str(split.tp)]
    if dtype := variables.pop("ALBIREO_WORKER_DTYPE", ""):  # the stack's own option decides it
        arguments += ["--dtype", dtype]
    pairs = [f"{name}={value}" for name, value in variables.items()]
    return f"{' '.join(pairs)} {shlex.join(arguments)}"


def compose_settings(split: Split, serving: Serving) -> str:
    """The text of an environment file of ``deploy/docker-compose.yml``."""
    on_gpus = serving.device == "cuda"
    variables = {
        **({"COMPOSE_PROFILES": "gpu"} if on_gpus else {}),
        "STACK_CPU_WORKERS": "0" if on_gpus else str(split.groups),
        "STACK_MODEL_DIR": shlex.quote(str(serving.model)),
        "ALBIREO_MODEL_NAME": serving.model_name,
        "STACK_TP": str(split.tp),
        **serving.settings(),
    }
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def compose_groups(split: Split, serving: Serving) -> str:
    """The text of a second file of the stack, in which each group has GPUs of its own; empty where none is
    needed."""
    if serving.device != "cuda" or split.groups == 1:
        return ""
    return "services:\n" + "".join(_gpu_service(split, group) for group in range(split.groups))


def _gpu_service(split: Split, group: int) -> str:
    first = group * split.tp
    devices = ",".join(map(str, range(first, first + split.tp)))
    base = "worker-gpu"
    # The path counts from the folder of the first file.
    extends = f"    extends: {{file: docker-compose.yml, service: {base}}}\n" if group else ""
    name = f"{base}-{group + 1}" if group else base
    return f'  {name}:\n{extends}    environment: {{CUDA_VISIBLE_DEVICES: "{devices}"}}\n'


def compose_command(split: Split, serving: Serving) -> str:
    """The command line that starts the stack, with its files in the current directory."""
    groups = f" -f {GROUPS_FILE}" if compose_groups(split, serving) else ""
    files = f"--env-file {ENVIRONMENT_FILE} -f deploy/docker-compose.yml{groups}"
    return f"docker compose {files} up -d --build --wait"


BUNDLED_ON_CPU = "overlays/cpu serves the bundled model; for another one, mount a volume with it"
CONTAINER = "/spec/leaderWorkerTemplate/workerTemplate/spec/containers/0"


def kubernetes_overlay(split: Split, serving: Serving) -> str:
    """``kustomization.yaml`` of a folder next to ``deploy/kubernetes/overlays/gpu``."""
    variables = {"ALBIREO_MODEL_NAME": serving.model_name, **serving.settings()}
    literals = "".join(f"      - {name}={value}\n" for name, value in variables.items())
    paths = [f"{CONTAINER}/env/0/value"]
    if serving.device == "cuda":
        paths += [f"{CONTAINER}/resources/{kind}/nvidia.com~1gpu" for kind in ("requests", "limits")]
    replaced = "".join(
        f'      - op: replace\n        path: {path}\n        value: "{split.tp}"\n' for path in paths
    )
    note = "" if serving.device == "cuda" else f"# {BUNDLED_ON_CPU}\n"
    return f"""\
{note}apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../{"gpu" if serving.device == "cuda" else "cpu"}]
configMapGenerator:
  - name: albireo-settings
    namespace: albireo
    behavior: merge
    literals:
{literals}patches:
  - target: {{kind: LeaderWorkerSet, name: worker}}
    patch: |
      - op: replace
        path: /spec/replicas
        value: {split.groups}
      - op: test
        path: {CONTAINER}/env/0/name
        value: RANKS_PER_POD
{replaced}"""
