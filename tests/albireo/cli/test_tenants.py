"""``albireo tenants``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from albireo.cli.tenants import app


def tenants(*arguments: str, url: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--redis-url", url])


def test_what_is_set_is_listed_until_it_is_removed(redis_url: str) -> None:
    assert "no tenant has a policy" in tenants("list", url=redis_url).output
    assert tenants("set", "a", "--weight", "2", "--max-requests", "8", url=redis_url).exit_code == 0
    done = tenants("set", "a", "--tokens-per-minute", "6000", "--queue-share", "0.5", url=redis_url)
    assert done.output == "a: weight 2, 8 requests at once, 6000 tokens a minute, 50 % of the queue\n"
    assert tenants("set", "b", url=redis_url).output == "b: weight 1, no quotas\n"
    listed = json.loads(tenants("list", "--json", url=redis_url).output)
    assert listed["a"] == {"weight": 2, "max_requests": 8, "tokens_per_minute": 6000, "queue_share": 0.5}
    assert list(listed) == ["a", "b"]
    assert tenants("remove", "a", url=redis_url).exit_code == 0
    done = tenants("remove", "a", url=redis_url)
    assert done.exit_code == 1
    assert "tenant a has no policy" in done.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a b",), "TENANT"),
        (("a", "--weight", "0"), "--weight"),
        (("a", "--queue-share", "1.5"), "--queue-share"),
        (("a", "--max-requests", "-1"), "--max-requests"),
    ],
)
def test_a_bad_value_is_refused_by_its_option(redis_url: str, arguments: tuple[str, ...], named: str) -> None:
    done = tenants("set", *arguments, url=redis_url)
    assert done.exit_code == 2
    assert named in done.output
    assert "no tenant has a policy" in tenants("list", url=redis_url).output


def test_without_a_url_it_is_the_redis_of_albireo_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while that does not run, as for the keys."""
    monkeypatch.delenv("ALBIREO_REDIS_URL", raising=False)
    own = ("--data-dir", str(tmp_path))
    assert CliRunner().invoke(app, ["set", "a", "--weight", "2", *own]).exit_code == 0
    assert "a: weight 2" in CliRunner().invoke(app, ["list", *own]).output


def test_a_password_comes_from_a_file_and_not_from_the_command_line(tmp_path: Path) -> None:
    options = ("--redis-url", "redis://127.0.0.1:1/0", "--redis-password-file", str(tmp_path / "none"))
    done = CliRunner().invoke(app, ["list", *options])
    assert done.exit_code == 1
    assert "redis_password_file" in done.output


def test_without_redis_it_is_one_line() -> None:
    done = tenants("list", url="redis://127.0.0.1:1/0")
    assert done.exit_code == 1
    assert done.output.startswith("albireo: Redis: ")
    assert done.output.count("\n") == 1
