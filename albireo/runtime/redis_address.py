"""The URL by which Redis is reached: the password and the authority of its certificate, from files."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

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


def redis_address(url: str, password_file: Path | None, ca_file: Path | None) -> str:
    """The URL to connect to, with what the files add: not for logs. Raises ValueError with the option."""
    if password_file is not None:
        try:
            url = with_password(url, read_password(password_file))
        except ValueError as error:
            raise ValueError(f"redis_password_file: {error}") from None
    if ca_file is not None:
        try:
            url = with_authority(url, ca_file)
        except ValueError as error:
            raise ValueError(f"redis_ca_file: {error}") from None
    return url


def with_password(url: str, password: str) -> str:
    """The same URL with the password in it. Raises ValueError where the URL has one already."""
    parts = urlsplit(url)
    if parts.password is not None or "password=" in parts.query:
        raise ValueError("the URL of Redis has a password too; leave one of them out")
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.rstrip(':')}:{quote(password, safe='')}@{host}").geturl()


def with_authority(url: str, ca_file: Path) -> str:
    """The same URL, where the server's certificate must be signed by an authority of the file.

    Raises ValueError where that cannot be read, or where the URL asks for no TLS.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        raise ValueError("the URL of Redis must begin with rediss://")
    try:
        ca_file.read_bytes()
    except OSError as error:
        raise ValueError(f"{ca_file}: {error.strerror}") from None
    query = f"ssl_ca_certs={quote(str(ca_file))}"
    return parts._replace(query=f"{parts.query}&{query}" if parts.query else query).geturl()


def cell_name(url: str) -> str:
    """Where the Redis of a URL is, without credentials and options: for logs, and equal for all gateways."""
    parts = urlsplit(url)
    [database] = parse_qs(parts.query).get("db", ["0"])[:1]
    if parts.scheme == "unix":
        return f"{parts.path}/{database}"
    return f"{parts.hostname}:{parts.port or 6379}/{parts.path.strip('/') or database}"
