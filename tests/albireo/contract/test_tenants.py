"""Policies of tenants as plain data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.contract.tenants import MAX_QUOTA, TenantPolicy, from_bytes, to_bytes

POLICIES = st.builds(
    TenantPolicy,
    weight=st.floats(0.001, 1000),
    max_requests=st.integers(0, MAX_QUOTA),
    tokens_per_minute=st.integers(0, MAX_QUOTA),
    queue_share=st.floats(0, 1, exclude_min=True),
)


@given(POLICIES)
def test_a_policy_is_read_as_it_was_written(policy: TenantPolicy) -> None:
    assert from_bytes(to_bytes(policy)) == policy


def test_fields_that_are_not_there_have_their_defaults() -> None:
    assert from_bytes(b'{"weight": 2}') == TenantPolicy(weight=2.0)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "Expecting value"),
        (b"[]", "no policy"),
        (b"[" * 100_000, "no policy"),
        (b'{"wait": 1}', "no policy"),
        (b'{"weight": "two"}', "two"),
        (b'{"weight": null}', "no policy"),
        (b'{"weight": 0}', "weight: 0"),
        (b'{"weight": NaN}', "weight: nan"),
        (b'{"max_requests": -1}', "max_requests: -1"),
        (b'{"tokens_per_minute": 1e300}', "tokens_per_minute: 1"),
        (b'{"queue_share": 0}', "queue_share: 0"),
        (b'{"max_requests": Infinity}', "no policy"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        from_bytes(data)
