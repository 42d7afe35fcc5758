"""A whole stack in which each tier has a user of its own, and the commands of deploy/redis/users.acl."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from albireo.local import stack as local_stack
from albireo.local.child import Command
from albireo.local.commands import Commands
from tests.deploy.redis_users import Server, server_with_users
from tests.stack import ask, request, running_stack


def commands_of(server: Server) -> type[Commands]:
    """Each service connects as its own user; the stack itself, which looks on, as admin."""

    class WithUsers(Commands):
        def _service(self, service: str, name: str, extra: Mapping[str, str], niceness: int = 0) -> Command:
            own = {**extra, "ALBIREO_REDIS_URL": server.url(service)}
            return super()._service(service, name, own, niceness)

    return WithUsers


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="passwords are made with openssl")
def test_a_stack_serves_with_a_user_for_each_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_with_users(tmp_path / "redis") as server:
        monkeypatch.setattr(local_stack, "Commands", commands_of(server))
        with running_stack(tmp_path / "data", redis_url=server.url("admin")) as running:
            answer = ask(running, request("What is 37 + 45?"))
            assert answer.finished.usage.completion_tokens > 0
            running.wait_idle()
    logs = "".join(path.read_text() for path in (tmp_path / "data" / "logs").glob("*.log"))
    assert "NOPERM" not in logs
    assert "permission" not in logs
