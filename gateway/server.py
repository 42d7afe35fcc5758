"""The gRPC server of a gateway: its services, its address, and its bounds on connections.

The gateway creates it at its start.
"""

from __future__ import annotations

import resource

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from albireo.runtime.health_service import AsyncHealthServicer, Statuses
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2, inference_pb2_grpc
from gateway.calls.interceptor import CallInterceptor
from gateway.control import ControlService
from gateway.inference import InferenceService
from gateway.settings import GatewaySettings
from gateway.tls import Certificates

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name
CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name
MAX_OTHER_CALLS = 1024
"""Most calls at once in addition to the streams, such as those for load."""
MAX_IDLE_MS = 900_000
"""A connection without a call is closed after this time; clients open another one by themselves."""
HANDSHAKE_MS = 20_000
"""A connection on which no HTTP/2 session begins is closed after this time."""
MIN_PING_MS = 10_000
"""Shortest interval between a client's pings during a call; its connection is closed if it sends more."""
OTHER_FILES = 256
"""Files of the process that are not connections of clients."""
UNLIMITED_FILES = 1 << 20
"""Most files of the process if the operating system sets no limit."""


def create_server(
    settings: GatewaySettings,
    interceptor: CallInterceptor,
    inference: InferenceService,
    control: ControlService,
    statuses: Statuses,
) -> tuple[grpc.aio.Server, int]:
    """A server that listens and has not been started, and its port. Called on the event loop.

    Raises OSError if the address is in use, ValueError where a file of its TLS cannot be used.
    """
    # Without maximum_concurrent_rpcs: at that limit all calls wait, including those for health.
    server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
    inference_pb2_grpc.add_InferenceServicer_to_server(inference, server)
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    health_pb2_grpc.add_HealthServicer_to_server(AsyncHealthServicer(statuses), server)
    names = (INFERENCE, CONTROL, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, _listen(server, settings, settings.port, _credentials(settings))


def create_health_server(
    settings: GatewaySettings, interceptor: CallInterceptor, statuses: Statuses
) -> tuple[grpc.aio.Server, int]:
    """A server for ``grpc.health.v1`` alone, without TLS, on ``settings.health_port``.

    For probes that have no certificate: those of Kubernetes and of HAProxy, and the local stack's. Its calls
    have the same bounds as those of the other server: everyone who reaches it needs no key.
    """
    server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
    health_pb2_grpc.add_HealthServicer_to_server(AsyncHealthServicer(statuses), server)
    return server, _listen(server, settings, settings.health_port or 0, None)


def _listen(
    server: grpc.aio.Server,
    settings: GatewaySettings,
    port: int,
    credentials: grpc.ServerCredentials | None,
) -> int:
    """Adds a port; returns its number. Raises OSError if the address is in use."""
    address = f"{settings.host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error


def _credentials(settings: GatewaySettings) -> grpc.ServerCredentials | None:
    """None without TLS. Raises ValueError where a file cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca).credentials()


def _options(settings: GatewaySettings) -> list[tuple[str, int]]:
    calls = settings.max_streams + MAX_OTHER_CALLS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = UNLIMITED_FILES
    return [
        ("grpc.max_receive_message_length", settings.max_message_mib << 20),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", calls),  # per connection
        # Calls that the server has not accepted yet. By default gRPC resets some of any client above 1,000.
        ("grpc.server.max_pending_requests", 2 * calls),
        ("grpc.server.max_pending_requests_hard_limit", 4 * calls),
        ("grpc.max_allowed_incoming_connections", max(files - OTHER_FILES, 1)),
        ("grpc.max_connection_idle_ms", MAX_IDLE_MS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        # Clients that disappear without closing their connection are detected within a minute.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # by default a minute, also for pings of keepalive
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MS),
    ]
