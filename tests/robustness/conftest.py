"""The fixtures of the gateway's tests: a gateway that serves, and what stands behind it."""

from __future__ import annotations

from tests.gateway.conftest import backend, served

__all__ = ["backend", "served"]
