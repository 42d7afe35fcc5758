"""The client library, for programs that call a gateway."""

from albireo.client.client import Client, Message, Prompt, describe, request_for
from albireo.runtime.access import Access

__all__ = ["Access", "Client", "Message", "Prompt", "describe", "request_for"]
