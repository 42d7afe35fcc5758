"""Writes the dashboards as the files that Grafana reads.

python -m deploy.observability.dashboards
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.observability import scheduler, service, step
from deploy.observability.panels import dashboard

FILES = Path(__file__).parent / "grafana" / "dashboards"
DASHBOARDS: dict[str, ModuleType] = {"service": service, "scheduler": scheduler, "step": step}


def rendered(name: str) -> str:
    """The JSON file of a dashboard."""
    module = DASHBOARDS[name]
    made = dashboard(name, str(module.__doc__), module.ROWS)
    return JSONEncoder(sort_keys=True, indent=2).encode(made) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FILES / f"{name}.json").write_text(rendered(name), encoding="utf-8")
