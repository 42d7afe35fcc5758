"""Which process of a container is a rank, from what `docker top` prints."""

from __future__ import annotations

import pytest

from deploy.smoke import containers

LAUNCHER = "torchrun --nnodes=1 --no-python timeout --kill-after=10 0 albireo worker"
TOP = f"""PID    COMMAND
200    /sbin/docker-init -- {LAUNCHER}
210    /opt/albireo/bin/python /opt/albireo/bin/{LAUNCHER}
220    timeout --kill-after=10 0 albireo worker
221    timeout --kill-after=10 0 albireo worker
230    /opt/albireo/bin/python /opt/albireo/bin/albireo worker
231    /opt/albireo/bin/python /opt/albireo/bin/albireo worker
"""


def test_the_last_rank_is_a_rank_not_what_launched_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "docker", lambda *arguments: TOP)
    assert containers.last_rank("worker-1") == 231


def test_a_group_of_one_rank_has_none_to_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "docker", lambda *arguments: "\n".join(TOP.splitlines()[:-1]))
    with pytest.raises(containers.Failed, match="1 ranks run"):
        containers.last_rank("worker-1")
