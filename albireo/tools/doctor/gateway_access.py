"""Checks who gets in at a gateway: its API keys, and its certificate."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from redis.exceptions import RedisError

from albireo.store.api_keys import ApiKeyStore
from albireo.store.connection import connect
from albireo.tools.doctor.finding import Finding, failure, note, ok, warning
from gateway.settings import GatewaySettings

DAY = 86_400
SOON_DAYS = 14
CREATE = "albireo keys create --tenant NAME"


def check_keys(settings: GatewaySettings) -> Finding:
    """Whether there are keys, and what the gateway does where there is none."""
    check = "API keys"
    try:
        with connect(settings.redis_address) as client:
            keys, problems = ApiKeyStore(client).all()
    except (RedisError, ValueError) as error:
        return note(check, f"not checked: {error}")
    valid = sum(not key.expired(time.time()) for key in keys.values())
    if problems:
        return warning(check, "; ".join(problems), "revoke these, or use the version that made them")
    if valid:
        return ok(check, f"{valid} that are valid, {len(keys) - valid} that have expired")
    if keys:
        return failure(check, "all have expired: every call is refused", CREATE)
    if not settings.serves_without_keys:
        return failure(check, f"none: a gateway on {settings.reached_at} does not start", CREATE)
    if settings.open:
        return warning(check, f"none: everyone who reaches {settings.reached_at} is served (--open)", CREATE)
    return ok(check, f"none: everyone on this machine is served ({settings.reached_at})")


def check_tls(settings: GatewaySettings) -> Finding:
    """Whether the certificate fits its key, and for how long it is valid."""
    check = "TLS"
    if settings.tls_cert is None or settings.tls_key is None:
        if settings.serves_without_keys:
            return ok(check, "none")
        return note(
            check, "none: API keys are sent in clear text", "--tls-cert, or a proxy with TLS in front"
        )
    try:
        days = (expiry_of(settings.tls_cert, settings.tls_key) - time.time()) / DAY
    except (OSError, ValueError) as error:
        return failure(check, f"{settings.tls_cert}: {error}", "correct --tls-cert and --tls-key")
    found = f"{settings.tls_cert} is valid for {days:.0f} days"
    if days < SOON_DAYS:
        return warning(check, found, "renew it: gateways read it again by themselves")
    return ok(check, found)


def expiry_of(certificate: Path, key: Path) -> float:
    """When a certificate expires, in seconds since the Unix epoch.

    Raises ValueError where it is not valid now, OSError where it cannot be read.
    By a handshake in memory with a client that trusts this certificate alone: ssl shows only those of peers.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        server.load_cert_chain(certificate, key, password=lambda: "")
        client.load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise ValueError(error.reason or str(error)) from None
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[ssl.SSLObject] = set()
    while len(done) < len(sides):
        for side in sides:
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                raise ValueError(error.verify_message) from None
    found = sides[0].getpeercert() or {}
    return ssl.cert_time_to_seconds(str(found["notAfter"]))
