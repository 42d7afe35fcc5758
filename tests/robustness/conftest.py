"""The fixtures of the gateway's tests: a gateway that serves, and scripted tiers behind it."""

from __future__ import annotations

from tests.gateway.conftest import backend, served

__all__ = ["backend", "served"]
