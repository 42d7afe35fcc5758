"""A conversation: every call sends all messages so far, and the answer becomes the next message.

Run: ``python examples/chat.py [HOST:PORT]``, with a stack that serves (``make up``). The prefix cache keeps
the earlier messages, so that a turn does not compute the whole conversation again; the last line of each
turn says how many tokens came from there.
"""

from __future__ import annotations

import sys

from albireo.client import Client

QUESTIONS = ("What is 37 + 45?", "Tell me a story about a fox.", "Which month comes after May?")


def main(target: str = "127.0.0.1:50051") -> None:
    messages: list[dict[str, str]] = []
    with Client(target) as client:
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            answer = ""
            for event in client.generate(messages, temperature=0, max_tokens=64):
                answer += event.tokens.text  # empty for events that are not tokens
                if event.HasField("finished"):
                    usage = event.finished.usage
            messages.append({"role": "assistant", "content": answer})
            print(f"> {question}\n{answer.strip()}")
            print(f"  ({usage.cached_prompt_tokens} of {usage.prompt_tokens} prompt tokens were cached)")


if __name__ == "__main__":
    main(*sys.argv[1:2])
