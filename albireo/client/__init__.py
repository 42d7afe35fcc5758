"""The client library, for programs that call a gateway."""

from albireo.client.client import Client, Message, Prompt, describe, request_for

__all__ = ["Client", "Message", "Prompt", "describe", "request_for"]
