"""Who makes a call, by its key: what each key permits, and that no answer says why a key is refused."""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from types import FrameType
from typing import Any

import grpc
import pytest

from albireo.contract import api_keys
from albireo.contract.api_keys import digest_of, new_key
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from gateway.calls import callers
from gateway.calls.callers import ANYONE, KEEP_SECONDS, Caller, Keyring, Metadata
from gateway.calls.refusal import Refusal
from tests.gateway.calls.keys import Clocks, headers, keyring, record

DENIED = grpc.StatusCode.PERMISSION_DENIED


def refused(ring: Keyring, metadata: Metadata) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(Refusal) as refusal:
        ring.caller(metadata)
    return refusal.value.code, refusal.value.message


def changed(text: str, at: int) -> str:
    """The same key with another hexadecimal digit at a position."""
    digits = list(text)
    digits[at] = "1" if digits[at] == "0" else "0"
    return "".join(digits)


def test_a_key_gives_its_tenant_and_its_priorities() -> None:
    text, key_id = new_key()
    ring = keyring(Clocks())
    ring.replace({key_id: record(text, least_priority=-5, greatest_priority=5)}, needed=True)
    assert ring.caller(headers(text)) == Caller(key_id, "acme", -5, 5)


def test_every_key_that_is_not_valid_is_refused_with_the_same_message() -> None:
    clocks = Clocks()
    ring = keyring(clocks)
    (valid, valid_id), (late, late_id), (revoked, revoked_id), (unknown, _) = (new_key() for _ in range(4))
    keys = {valid_id: record(valid), late_id: record(late, expires_at=1_010), revoked_id: record(revoked)}
    ring.replace(keys, needed=True)
    ring.caller(headers(late))
    clocks.wall = 1_010
    del keys[revoked_id]
    ring.replace(keys, needed=True)
    refusals = {
        refused(ring, metadata)
        for metadata in (
            (),
            headers(""),
            headers("alb_"),
            headers("x" * 5_000),
            headers(changed(valid, -1)),  # the secret
            headers(changed(valid, 4)),  # the id
            headers(valid.upper()),
            headers(f"{valid} "),
            headers(late),
            headers(revoked),
            headers(unknown),
            (("authorization", valid),),  # no scheme
            (("authorization", f"Basic {valid}"),),
            (("authorization-bin", f"Bearer {valid}".encode()),),
        )
    }
    assert len(refusals) == 1
    [(code, message)] = refusals
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer" in message
    ring.caller(headers(valid))


def opcodes_of(call: Callable[[], object]) -> int:
    """How many instructions of the interpreter a call takes in the code that checks keys."""
    count, files = 0, {callers.__file__, api_keys.__file__}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_an_unknown_id_a_wrong_secret_and_a_revoked_or_expired_key_take_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted in instructions of the interpreter, and in what is hashed and compared: a time would vary."""
    clocks, work = Clocks(), list[tuple[str, int]]()
    (valid, valid_id), (late, late_id), (revoked, revoked_id), (unknown, _) = (new_key() for _ in range(4))
    ring = keyring(clocks)
    keys = {valid_id: record(valid), late_id: record(late, expires_at=500), revoked_id: record(revoked)}
    ring.replace(keys, needed=True)
    del keys[revoked_id]
    ring.replace(keys, needed=True)

    def ask(text: str) -> None:
        with pytest.raises(Refusal):
            ring.caller(headers(text))

    texts = [changed(valid, -1), changed(valid, -64), unknown, revoked, late, changed(late, -1)]
    assert len({opcodes_of(lambda text=text: ask(text)) for text in texts}) == 1  # type: ignore[misc]

    def hashed(text: str) -> bytes:
        work.append(("hashed", len(text)))
        return digest_of(text)

    def compared(one: bytes, other: bytes) -> bool:
        work.append(("compared", len(one) + len(other)))
        return one == other

    monkeypatch.setattr(callers, "digest_of", hashed)
    monkeypatch.setattr(callers.hmac, "compare_digest", compared)
    for text in texts:
        ask(text)
    assert work == [("hashed", len(valid)), ("compared", 64)] * len(texts)


def test_a_check_takes_microseconds_with_ten_thousand_keys() -> None:
    made = [new_key() for _ in range(10_000)]
    ring = keyring(Clocks())
    ring.replace({key_id: record(text) for text, key_id in made}, needed=True)
    metadata = headers(made[5_000][0])
    assert min(timeit.repeat(lambda: ring.caller(metadata), number=100, repeat=20)) / 100 < 50e-6


def test_without_a_key_everyone_is_served_until_there_is_one() -> None:
    text, key_id = new_key()
    ring = keyring(Clocks(), is_open=True)
    assert ring.caller(()).tenant is None
    ring.replace({}, needed=False)
    assert ring.caller(headers("wrong")).tenant is None
    ring.replace({key_id: record(text)}, needed=True)
    refused(ring, ())
    ring.replace({}, needed=False)  # the last one was revoked: that opens nothing
    refused(ring, ())
    refused(ring, headers(text))


def test_a_record_that_cannot_be_read_closes_the_gateway_too() -> None:
    ring = keyring(Clocks(), is_open=True)
    ring.replace({}, needed=True)
    refused(ring, ())


def test_the_last_known_keys_count_for_a_bounded_time() -> None:
    text, key_id = new_key()
    clocks = Clocks()
    ring = keyring(clocks)
    ring.replace({key_id: record(text)}, needed=True)
    clocks.now = KEEP_SECONDS
    ring.caller(headers(text))
    clocks.now += 1
    code, message = refused(ring, headers(text))
    assert (code, "Redis" in message) == (grpc.StatusCode.UNAVAILABLE, True)
    ring.confirm()
    ring.caller(headers(text))


KEY = Caller("id", "acme", -5, 5)


def filled(caller: Caller, **fields: Any) -> tuple[str, int | None]:
    """Tenant and priority that a request has then."""
    request = api.GenerateRequest(**fields)
    caller.fill_in(request)
    return request.tenant, request.priority if request.HasField("priority") else None


def test_tenant_and_priority_come_from_the_key() -> None:
    assert filled(KEY) == ("acme", 0)
    assert filled(KEY, tenant="acme", priority=-5) == ("acme", -5)
    assert filled(Caller("id", "acme", 10, 20)) == ("acme", 10)
    assert filled(Caller("id", "acme", -20, -10)) == ("acme", -10)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tenant": "other"}, "tenant"),
        ({"tenant": "x" * 10_000}, "tenant"),
        ({"priority": -6}, "priority"),
        ({"priority": 6}, "priority"),
    ],
)
def test_what_the_key_does_not_permit_is_refused_by_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Refusal, match=f"^{named}: ") as refusal:
        filled(KEY, **fields)
    assert refusal.value.code is DENIED
    assert len(refusal.value.message) < 200


def test_of_what_is_counted_by_tenant_a_key_sees_its_own() -> None:
    load = control.Load(waiting_by_tenant={"acme": 3, "rival": 5, "other": 1})
    ANYONE.keep_own(load.waiting_by_tenant)
    assert len(load.waiting_by_tenant) == 3
    KEY.keep_own(load.waiting_by_tenant)
    assert dict(load.waiting_by_tenant) == {"acme": 3}


def test_without_keys_a_request_says_itself_whose_it_is() -> None:
    caller = keyring(Clocks(), is_open=True).caller(())
    assert filled(caller, tenant="them", priority=-100) == ("them", -100)
    assert filled(caller) == ("", None)
    assert caller.scope == ""
