"""Compares this machine's clock with that of Redis, the one clock that all machines can read."""

from __future__ import annotations

import time

import redis

from albireo.tools.doctor.finding import Finding, ok, warning

READINGS = 50
SKEW_SECONDS = 1e-3
"""T1 and the plan's age are differences between the clocks of two tiers, of about a millisecond each."""


def check_clock(client: redis.Redis) -> Finding:
    """Raises RedisError."""
    apart, within = skew(client)
    found = f"{apart * 1e3:+.2f} ms against Redis, give or take {within * 1e3:.2f} ms"
    if abs(apart) - within > SKEW_SECONDS:
        return warning(
            "clock",
            found,
            "let NTP or chrony set the clocks of all machines: T1, plan age and visible times come out wrong",
        )
    return ok("clock", found)


def skew(client: redis.Redis) -> tuple[float, float]:
    """Seconds that the clock of Redis is ahead, and the error of that: half of the shortest round trip."""
    readings = []
    for _ in range(READINGS):
        began = time.time()
        seconds, microseconds = client.time()
        ended = time.time()
        there = seconds + microseconds / 1e6
        readings.append(((ended - began) / 2, there - (began + ended) / 2))
    within, apart = min(readings)
    return apart, within
