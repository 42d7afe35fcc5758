"""Cancels a running request, in both ways: by leaving its stream, and from elsewhere by its id.

Run: ``python examples/cancel.py [HOST:PORT]``, with a stack that serves (``make up``).
"""

from __future__ import annotations

import sys
from uuid import uuid4

from albireo.client import Client
from albireo.v1.inference_pb2 import FinishReason

STORY = "Tell me a story about a fox."


def main(target: str = "127.0.0.1:50051") -> None:
    with Client(target) as client:
        for event in client.generate(STORY, max_tokens=800, ignore_eos=True):
            if event.HasField("tokens"):
                print(f"left the stream after its first {len(event.tokens.ids)} tokens")
                break  # the request is cancelled with the iteration

        request_id = f"example-{uuid4().hex[:8]}"
        for event in client.generate(STORY, request_id=request_id, max_tokens=800, ignore_eos=True):
            if event.HasField("accepted"):
                print(f"cancel {request_id}: found = {client.cancel(request_id)}")
            elif event.HasField("finished"):
                reason = FinishReason.Name(event.finished.reason)
                print(f"{reason} after {event.finished.usage.completion_tokens} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:2])
