"""The requests that a load run sends."""

from __future__ import annotations

from bench.serve.lengths import parse_lengths
from bench.serve.load import make_requests


def test_requests_have_the_lengths_asked_for_within_the_context() -> None:
    made = make_requests(
        200,
        parse_lengths("uniform:1-60"),
        parse_lengths("uniform:1-60"),
        vocab_size=50,
        max_model_len=64,
        seed=1,
        temperature=0.5,
    )
    lengths = [(len(m.token_ids.ids), m.sampling.max_tokens) for m in made]
    assert all(prompt + output <= 64 and output >= 1 for prompt, output in lengths)
    assert any(prompt + output == 64 for prompt, output in lengths)
    assert all(token < 50 for m in made for token in m.token_ids.ids)
    assert all(m.sampling.ignore_eos and m.sampling.temperature == 0.5 for m in made)
    assert len({m.sampling.seed for m in made}) == 200


def test_a_seed_makes_the_same_requests() -> None:
    def make(seed: int) -> list[bytes]:
        lengths = parse_lengths("normal:20,5")
        made = make_requests(5, lengths, lengths, vocab_size=99, max_model_len=64, seed=seed, temperature=0)
        return [m.SerializeToString() for m in made]

    assert make(1) == make(1) != make(2)
