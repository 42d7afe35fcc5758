"""What runs a chosen split: commands of ``albireo up``, settings of the compose stack, Kubernetes overlays.

``albireo plan`` ends with them. A scheduler leads one group, so each group is a stack of its own, with its
own Redis, gateway and port; the operator chooses the load balancer in front of them.
"""

from __future__ import annotations

import shlex

from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import Split

FIRST_PORT = 50051


def up_commands(split: Split, serving: Serving) -> list[str]:
    """A command line for each group."""
    return [_up(split, serving, group) for group in range(split.groups)]


def _up(split: Split, serving: Serving, group: int) -> str:
    variables = dict(serving.settings())
    arguments = ["albireo", "up", "--model", str(serving.model), "--device", serving.device]
    arguments += ["--tp", str(split.tp)]
    if dtype := variables.pop("ALBIREO_WORKER_DTYPE", ""):  # the stack's own option decides it
        arguments += ["--dtype", dtype]
    if split.groups > 1:
        variables |= _visible(split, serving, group)
        own = ["--port", str(FIRST_PORT + group), "--data-dir", f".albireo/g{group}"]
        arguments += ["--group", f"g{group}", *own]
    pairs = [f"{name}={value}" for name, value in variables.items()]
    return f"{' '.join(pairs)} {shlex.join(arguments)}"


def compose_settings(split: Split, serving: Serving) -> list[str]:
    """For each group the text of an environment file of ``deploy/docker-compose.yml``."""
    return [_compose(split, serving, group) for group in range(split.groups)]


def _compose(split: Split, serving: Serving, group: int) -> str:
    gpus = {"COMPOSE_PROFILES": "gpu", "STACK_CPU_WORKERS": "0"} if serving.device == "cuda" else {}
    variables = {
        **gpus,
        "STACK_MODEL_DIR": shlex.quote(str(serving.model)),
        "ALBIREO_MODEL_NAME": serving.model_name,
        "STACK_TP": str(split.tp),
        **serving.settings(),
    }
    if split.groups > 1:
        variables["STACK_PORT"] = str(FIRST_PORT + group)
        variables |= _visible(split, serving, group)
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def compose_command(split: Split, group: int) -> str:
    """The command line that starts one group, by an environment file in the current directory."""
    project = f" -p albireo-g{group}" if split.groups > 1 else ""
    environment = f"g{group}.env" if split.groups > 1 else "albireo.env"
    files = f"--env-file {environment} -f deploy/docker-compose.yml"
    return f"docker compose{project} {files} up -d --build --wait"


def _visible(split: Split, serving: Serving, group: int) -> dict[str, str]:
    """Which GPUs of the machine one of several groups uses."""
    if serving.device != "cuda":
        return {}
    first = group * split.tp
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(first, first + split.tp)))}


BUNDLED_ON_CPU = "overlays/cpu serves the bundled model; for another one, mount a volume with it"
CONTAINER = "/spec/leaderWorkerTemplate/workerTemplate/spec/containers/0"


def kubernetes_overlay(split: Split, serving: Serving) -> str:
    """``kustomization.yaml`` of a folder next to ``deploy/kubernetes/overlays/gpu``, for one group; of
    several, each has a namespace of its own, of which the text has the first."""
    variables = {"ALBIREO_MODEL_NAME": serving.model_name, **serving.settings()}
    literals = "".join(f"      - {name}={value}\n" for name, value in variables.items())
    namespace = "namespace: albireo-g0  # the next group: albireo-g1, ...\n" if split.groups > 1 else ""
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
{namespace}resources: [../{"gpu" if serving.device == "cuda" else "cpu"}]
configMapGenerator:
  - name: albireo-settings
    namespace: albireo
    behavior: merge
    literals:
{literals}patches:
  - target: {{kind: LeaderWorkerSet, name: worker}}
    patch: |
      - op: test
        path: {CONTAINER}/env/0/name
        value: RANKS_PER_POD
{replaced}"""
