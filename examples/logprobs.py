"""Log-probabilities: how likely each token of an answer was, and what the model would have said instead.

Run: ``python examples/logprobs.py [HOST:PORT]``, with a stack that serves (``make up``).
"""

from __future__ import annotations

import math
import sys

from albireo.client import Client


def main(target: str = "127.0.0.1:50051") -> None:
    with Client(target) as client:
        print(f"{'token':<12} {'probability':>11}   alternatives")
        for event in client.generate("What is 37 + 45?", temperature=0, max_tokens=16, logprobs=3):
            for token, likely in zip(event.tokens.ids, event.tokens.logprobs, strict=True):
                others = [
                    f"{client.detokenize([other])!r} {math.exp(logprob):.1%}"
                    for other, logprob in zip(likely.top_ids, likely.top_logprobs, strict=True)
                    if other != token
                ]
                text = repr(client.detokenize([token]))
                print(f"{text:<12} {math.exp(likely.logprob):>11.1%}   {', '.join(others)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
