"""Sampling controls, several answers and prompt log-probabilities through all four tiers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from albireo.contract.plan import branch_seed
from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from tests.stack import Answer, Running, ask, request

STORY = "Tell me a story about a fox. "


@pytest.mark.parametrize("repeat", [1, 5])
def test_branches_equal_solo_requests_with_their_seeds(unharmed: Running, repeat: int) -> None:
    """With the prompt in less than a block beyond the last full one, and with several blocks to share."""
    options: dict[str, Any] = {"temperature": 1.0, "max_tokens": 40, "presence_penalty": 0.5, "top_p": 0.95}
    several = ask(unharmed, request(STORY * repeat, n=4, seed=2**64 - 3, **options))
    seeds = list(several.events[0].accepted.branch_seeds)
    assert seeds == [branch_seed(2**64 - 3, index) for index in range(4)]
    texts = set()
    for index, seed in enumerate(seeds):
        ids, text, end = several.branch(index)
        solo = ask(unharmed, request(STORY * repeat, seed=seed, **options))
        assert (ids, text, end.reason) == (solo.ids, solo.text, solo.finished.reason)
        assert end.usage.completion_tokens == len(ids)
        if index and repeat > 1:
            assert end.usage.cached_prompt_tokens >= end.usage.prompt_tokens // 16 * 16 - 16 > 0
        texts.add(text)
    assert len(texts) == 4


def test_a_cancellation_ends_every_branch(unharmed: Running) -> None:
    message = request(STORY, n=3, temperature=1.0, max_tokens=900, ignore_eos=True)
    message.request_id = "several-to-cancel"
    call = unharmed.inference.Generate(message, timeout=60)
    events = [next(call), next(call)]
    cancel = api.CancelRequest(request_id="several-to-cancel")
    assert unharmed.inference.Cancel(cancel, timeout=5).found
    answer = Answer([*events, *call])
    assert [answer.branch(index)[2].reason for index in range(3)] == [api.FINISH_REASON_CANCELLED] * 3


def test_allowed_bad_and_biased_tokens_show_in_the_output(unharmed: Running) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "max_tokens": 60, "seed": 3, "ignore_eos": True}
    free = ask(unharmed, request(STORY, **options))
    common = max(set(free.ids), key=free.ids.count)
    without = ask(unharmed, request(STORY, bad_token_ids=[common], **options))
    assert common not in without.ids
    only = ask(unharmed, request(STORY, allowed_token_ids=[40, 41, 42], bad_token_ids=[41], **options))
    assert set(only.ids) == {40, 42}
    pushed = ask(unharmed, request(STORY, logit_bias={77: 100.0}, **options))
    assert pushed.ids == [77] * 60
    kept_off = ask(unharmed, request(STORY, logit_bias={common: -100.0}, **options))
    assert common not in kept_off.ids


def test_penalties_keep_a_greedy_answer_from_repeating_itself(unharmed: Running) -> None:
    options: dict[str, Any] = {"max_tokens": 50, "ignore_eos": True}
    plain = ask(unharmed, request(STORY, **options))
    for penalty in ({"repetition_penalty": 5.0}, {"presence_penalty": 2.0, "frequency_penalty": 2.0}):
        penalized = ask(unharmed, request(STORY, **{**options, **penalty}))
        assert len(set(penalized.ids)) > len(set(plain.ids))


@pytest.mark.parametrize("n", [1, 2])
def test_prompt_log_probabilities_are_transformers(unharmed: Running, n: int) -> None:
    """Of a prompt that the prefix cache holds already; in chunks, as the prompt is longer than one."""
    message = request(STORY * 30, chat=False, max_tokens=4)
    ids = unharmed.inference.Tokenize(api.TokenizeRequest(text=message.text), timeout=10).ids
    assert len(ids) > 520
    ask(unharmed, message)
    message.sampling.prompt_logprobs = 3
    message.sampling.n = n
    answer = ask(unharmed, message)
    tokens_at = answer.kinds.index("tokens")
    parts_at = [at for at, kind in enumerate(answer.kinds) if kind == "prompt_logprobs"]
    assert max(parts_at) < tokens_at
    parts = [answer.events[at].prompt_logprobs for at in parts_at]
    entries = [entry for part in parts for entry in part.logprobs]
    assert [part.start for part in parts] == [
        1 + sum(len(part.logprobs) for part in parts[:k]) for k in range(len(parts))
    ]
    assert len(entries) == len(ids) - 1
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
        expected = model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)[:-1]
    chosen = expected.gather(-1, torch.tensor(list(ids))[1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor([entry.logprob for entry in entries]), chosen, atol=1e-3, rtol=0)
    top = expected.topk(3).values
    found = torch.tensor([list(entry.top_logprobs) for entry in entries])
    torch.testing.assert_close(found, top, atol=1e-3, rtol=0)
    at_top = torch.tensor([list(entry.top_ids) for entry in entries])
    torch.testing.assert_close(expected.gather(-1, at_top), found, atol=1e-3, rtol=0)
    assert answer.branch(0)[2].usage.cached_prompt_tokens == 0
