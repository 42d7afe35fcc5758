"""Checks a running compose stack: kills every container in turn, and lets worker groups come and go.

    docker compose -f deploy/docker-compose.yml up -d --build --wait
    python -m deploy.smoke

Needs the Docker command line and the right to signal processes of containers (root, on the machine that runs
them). The exit status is 1 where an answer does not come, a container does not come back, the end of a worker
group shows in a stream, or an error in between is not clear: UNAVAILABLE or retryable, with a message.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.table import Table

from albireo import DEFAULT_TARGET
from deploy.smoke import groups, kills
from deploy.smoke.containers import Failed, compose
from deploy.smoke.requests import CALL_SECONDS, STORY, ask


def image_table() -> Table:
    table = Table("service", "image", "MB", title="images")
    for row in sorted(
        json.loads(compose("images", "--format", "json")), key=lambda row: row["ContainerName"]
    ):
        name = f"{row['Repository']}:{row['Tag']}"
        table.add_row(row["ContainerName"], name, f"{row['Size'] / 1e6:.0f}")
    return table


def check(console: Console, target: str, victims: list[str]) -> None:
    """Raises Failed."""
    answer = ask(target, STORY, timeout=CALL_SECONDS)
    if answer.error or not answer.tokens:
        raise Failed(f"no answer through the stack: {answer}")
    console.print(f"an answer of {answer.tokens} tokens in {answer.ended - answer.sent:.2f} s")
    killed = []
    for victim in victims:
        killed.append(kills.kill(target, victim))
        console.print(f"{victim}: served again after {killed[-1].served_again:.1f} s")
    console.print(image_table(), kills.table(killed))
    problems = {one.victim: one.problems for one in killed if one.problems}
    if problems:
        raise Failed(f"streams that were cut, or errors that are not clear: {problems}")
    console.print(groups.check(target))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default=DEFAULT_TARGET, help="the published port, host:port")
    parser.add_argument(
        "--victims", nargs="*", choices=kills.VICTIMS, default=kills.VICTIMS, help="what is killed"
    )
    options = parser.parse_args()
    console = Console(width=160)
    try:
        check(console, options.target, options.victims)
    except Failed as error:
        console.print(f"FAILED: {error}", style="red", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
