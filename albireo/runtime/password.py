"""The password of Redis: from a file, into the URL that clients connect to."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit

MAX_BYTES = 1024


def read_password(path: Path) -> str:
    """What the file holds, without the newline at its end.

    Raises ValueError, which names the file, where there is nothing to read or it is no password.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: longer than {MAX_BYTES} bytes")
    try:
        password = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
    if not password:
        raise ValueError(f"{path}: empty")
    return password


def with_password(url: str, password: str) -> str:
    """The same URL with the password in it. Raises ValueError where the URL has one already."""
    parts = urlsplit(url)
    if parts.password is not None or "password=" in parts.query:
        raise ValueError("the URL of Redis has a password too; leave one of them out")
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.rstrip(':')}:{quote(password, safe='')}@{host}").geturl()
