"""A Prometheus process for one run: the program on the PATH, its targets and rules, and its HTTP API."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from albireo.local.ports import free_port
from albireo.runtime.process import end

START_SECONDS = 20.0
ANSWER_SECONDS = 20.0


class PrometheusError(RuntimeError):
    """Prometheus is not installed, does not start, or refuses a query."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its labels, and its finite values."""

    labels: Mapping[str, str]
    values: tuple[float, ...]


class Prometheus:
    """A context manager around the process. Scrapes every second."""

    def __init__(self, directory: Path, targets: Mapping[str, Sequence[str]], rules: Path) -> None:
        """``targets``: ``host:port`` of each, by job. Raises PrometheusError where there is no Prometheus."""
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError("prometheus is not on the PATH (Debian: apt-get install prometheus)")
        jobs = [{"job_name": job, "static_configs": [{"targets": list(of)}]} for job, of in targets.items()]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules.resolve())],
            "scrape_configs": jobs,
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._log = directory / "prometheus.log"
        self._address = f"127.0.0.1:{free_port('127.0.0.1')}"
        self._command = [
            program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={self._address}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise PrometheusError(f"prometheus does not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            end(self._process)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def value(self, query: str) -> float | None:
        """The present value of a query that has one value; None where it has none."""
        found = self._ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def series(self, query: str, start: float, end: float) -> list[Series]:
        """Series of a query between two Unix times in seconds, with a resolution of one second."""
        found = self._ask("query_range", query=query, start=start, end=end, step=1)["result"]
        return [
            Series(line["metric"], tuple(v for _, text in line["values"] if math.isfinite(v := float(text))))
            for line in found
        ]

    def rules(self) -> list[dict[str, Any]]:
        """The alert rules that it has loaded, each with ``name``, ``health`` and ``state``."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Each with ``scrapeUrl``, ``health`` and ``lastError``."""
        return list(self._ask("targets")["activeTargets"])

    def _ask(self, what: str, **arguments: Any) -> Any:
        address = f"http://{self._address}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{arguments.get('query', what)}: {error.read().decode()}") from None
