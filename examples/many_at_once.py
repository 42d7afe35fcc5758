"""Many requests at once, on one connection: they run in one batch, and answers come as they end.

Run: ``python examples/many_at_once.py [HOST:PORT]``, with a stack that serves (``make up``).
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from albireo.client import Client

REQUESTS = 32


def ask(client: Client, question: str) -> tuple[str, str]:
    """The question and its whole answer. Raises grpc.RpcError."""
    events = client.generate(question, temperature=0, max_tokens=16, timeout=60)
    return question, "".join(event.tokens.text for event in events).strip()


def main(target: str = "127.0.0.1:50051") -> None:
    questions = [f"What is {number} + {number + 1}?" for number in range(REQUESTS)]
    begin = time.perf_counter()
    with Client(target) as client, ThreadPoolExecutor(REQUESTS) as threads:
        calls = [threads.submit(ask, client, question) for question in questions]
        for call in as_completed(calls):
            question, answer = call.result()
            print(f"{question:<18} {answer}")
    print(f"{REQUESTS} answers in {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:2])
