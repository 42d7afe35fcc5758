"""``albireo keys`` on a real Redis, and on that of a stack that is not running."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from albireo.cli import app
from albireo.contract.api_keys import FORM, digest_of
from albireo.contract.keys import API_KEYS
from albireo.store.api_keys import ApiKeyStore


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    result = CliRunner().invoke(app, ["keys", *arguments], env={"COLUMNS": "240", "NO_COLOR": "1"})
    return result.exit_code, result.stdout, result.stderr


def listed(url: str) -> list[dict[str, Any]]:
    code, out, _ = run("list", "--json", "--redis-url", url)
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_a_key_is_shown_once_and_only_its_hash_is_stored(redis_url: str) -> None:
    code, out, err = run(
        "create",
        "--tenant",
        "acme",
        "--priorities=-5:10",
        "--days",
        "2",
        "--note",
        "n",
        "--redis-url",
        redis_url,
    )
    assert code == 0
    text = out.strip()
    form = FORM.fullmatch(text)
    assert form is not None
    assert text not in err
    with redis.Redis.from_url(redis_url) as client:
        keys, _ = ApiKeyStore(client).all()
        raw = b"".join(client.hgetall(API_KEYS).values())
    assert keys[form[1]].digest == digest_of(text)
    assert text.split("_")[2].encode() not in raw
    [row] = listed(redis_url)
    assert (row["id"], row["tenant"], row["priorities"], row["note"]) == (form[1], "acme", [-5, 10], "n")
    assert abs((keys[form[1]].expires_at or 0) - time.time() - 2 * 86_400) < 60
    assert not row["expired"]
    _, table, _ = run("list", "--redis-url", redis_url)
    assert form[1] in table
    assert text.split("_")[2] not in table


def test_a_revoked_key_is_gone_and_cannot_be_revoked_twice(redis_url: str) -> None:
    run("create", "--tenant", "acme", "--redis-url", redis_url)
    [row] = listed(redis_url)
    assert (row["priorities"], row["expires"]) == ([0, 100], None)
    assert run("revoke", row["id"], "--redis-url", redis_url)[0] == 0
    assert listed(redis_url) == []
    code, _, err = run("revoke", row["id"], "--redis-url", redis_url)
    assert (code, err) == (1, f"albireo: there is no key {row['id']}\n")


def test_an_expired_key_is_shown_as_such(redis_url: str) -> None:
    run("create", "--tenant", "acme", "--days", "0", "--redis-url", redis_url)
    [row] = listed(redis_url)
    assert row["expired"]
    assert "(expired)" in run("list", "--redis-url", redis_url)[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["create"], "--tenant"),
        (["create", "--tenant", "a b"], "tenant: 'a b'"),
        (["create", "--tenant", "a", "--priorities", "5"], "--priorities"),
        (["create", "--tenant", "a", "--priorities", "5:1"], "priorities: 5 to 1"),
        (["create", "--tenant", "a", "--days", "inf"], "infinity"),
        (["revoke", "alb_x"], "an id has 16 characters"),
    ],
)
def test_a_bad_option_is_named(redis_url: str, arguments: list[str], named: str) -> None:
    code, _, err = run(*arguments, "--redis-url", redis_url)
    assert code == 2
    assert named in err
    assert listed(redis_url) == []


def test_a_redis_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    code, _, err = run("list", "--redis-url", "redis://127.0.0.1:1/0")
    assert code == 1
    assert err.startswith("albireo: Redis: ")
    code, _, err = run("list", "--redis-password-file", str(tmp_path / "gone"), "--redis-url", "redis://h/0")
    assert (code, err.count("\n")) == (1, 1)
    assert "redis_password_file" in err
    code, _, err = run("list", "--redis-password-file", str(tmp_path / "gone"))
    assert (code, "--redis-url" in err) == (1, True)


def test_without_a_redis_the_keys_are_those_of_albireo_up(tmp_path: Path) -> None:
    """Also while it does not run: a stack on another address needs a key before it starts."""
    for tenant in ("a", "b"):
        assert run("create", "--tenant", tenant, "--data-dir", str(tmp_path))[0] == 0
    code, out, _ = run("list", "--json", "--data-dir", str(tmp_path))
    assert code == 0
    assert sorted(row["tenant"] for row in json.loads(out)) == ["a", "b"]
