"""What clients bring: an API key and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.runtime.access import ANYONE, Access, read_key


def test_a_key_is_a_header_of_each_call_and_is_not_shown() -> None:
    access = Access(api_key="alb_x")
    assert access.metadata == (("authorization", "Bearer alb_x"),)
    assert "alb_x" not in repr(access)
    assert ANYONE.metadata == ()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"api_key": "a\nb"}, "api_key"),
        ({"api_key": "ü"}, "api_key"),
        ({"tls_ca": Path("gone")}, "tls_ca: gone: No such file"),
        ({"tls": True, "tls_cert": Path("c")}, "tls_cert and tls_key"),
        ({"tls_cert": Path("c"), "tls_key": Path("k")}, "tls_cert: needs tls or tls_ca too"),
        ({"tls": True, "tls_cert": Path("c"), "tls_key": Path("k")}, "tls_key: k: No such file"),
    ],
)
def test_what_cannot_be_used_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Access(**fields)  # type: ignore[arg-type]


def test_a_file_holds_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" alb_x\r\n")
    assert read_key(path) == "alb_x"
    for content in ("", "\n", "x" * 2_000):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"api_key_file: {path}"):
            read_key(path)
    with pytest.raises(ValueError, match="No such file"):
        read_key(tmp_path / "gone")
