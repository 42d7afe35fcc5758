"""Streams one answer: prints each piece of text as it arrives, then why and where the answer ended.

Run: ``python examples/stream.py [HOST:PORT]``, with a stack that serves (``make up``).
"""

from __future__ import annotations

import sys

from albireo.client import Client
from albireo.v1.inference_pb2 import FinishReason


def main(target: str = "127.0.0.1:50051") -> None:
    with Client(target) as client:
        for event in client.generate("What is 37 + 45?", temperature=0, max_tokens=32):
            if event.HasField("tokens"):
                print(event.tokens.text, end="", flush=True)
            elif event.HasField("finished"):
                usage, reason = event.finished.usage, FinishReason.Name(event.finished.reason)
                print(f"\n{usage.prompt_tokens} + {usage.completion_tokens} tokens, {reason}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
