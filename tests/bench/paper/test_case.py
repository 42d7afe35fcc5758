"""Lengths, and what fits into memory."""

from __future__ import annotations

from bench.paper.case import Case, Lengths, throughputs
from worker_svc.cost.device import Device

H100 = Device.load("h100")


def test_the_mean_step_has_the_mean_of_a_whole_life() -> None:
    lengths = Lengths(prompt=10, output=100)
    contexts = [lengths.prompt + made for made in range(1, lengths.output + 1)]
    assert lengths.mean == sum(contexts) / len(contexts)
    work = lengths.mean_step(200)
    assert work.prefill == 20  # two prompts begin in each step
    assert work.context == 200 * lengths.mean


def test_fewer_requests_run_where_memory_is_short() -> None:
    lengths = Lengths(prompt=100, output=600)
    assert Case("Qwen2.5-32B", 4, "full", 256).running(H100, lengths) == 256
    assert 64 < Case("Qwen2.5-32B", 1, "full", 256).running(H100, lengths) < 128


def test_a_model_that_does_not_fit_runs_nothing() -> None:
    case = Case("Llama3.1-70B", 1, "full", 256)
    assert case.blocks(H100) == 0
    assert case.running(H100, Lengths(10, 10)) == 0


def test_what_is_the_same_is_predicted_once() -> None:
    asked = []

    def predict(case: Case, device: Device, lengths: Lengths) -> float:
        asked.append(case)
        return float(len(asked))

    cases = [Case("Llama2-7B", 1, mode, 4) for mode in ("synchronous", "async only", "full", "full")]
    found = throughputs(predict, cases, H100, Lengths(1, 1))
    assert [found[case] for case in cases] == [1.0, 2.0, 2.0, 2.0]
