"""A submission whose answer from Redis is lost: nothing is left of it, and its id may be sent again.

The client gets UNAVAILABLE, of which gRPC's list of status codes says that a retry can correct it.
"""

from __future__ import annotations

import grpc
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from albireo.contract.plan import Submission, public_name
from gateway.store.interface import NewRequest, Verdict
from tests.gateway.conftest import Served, code_of, eventually, request

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_submission_whose_answer_was_lost_leaves_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = served.at.store
    submit = store.submit

    async def lost(request: NewRequest) -> tuple[Verdict, int]:
        await submit(request)
        raise RedisConnectionError("the connection broke")

    with monkeypatch.context() as broken:
        broken.setattr(store, "submit", lost)
        assert await code_of(served.inference.Generate(request())) is grpc.StatusCode.UNAVAILABLE
    await eventually(lambda: len(served.backend.inbox()) == 2)
    accepted, cancelled = served.backend.inbox()
    assert isinstance(accepted, Submission)
    assert (public_name(accepted.request_id), cancelled) == ("r", "r")
    again = served.inference.Generate(request("Another body."), timeout=30)
    assert (await again.read()).HasField("accepted")
