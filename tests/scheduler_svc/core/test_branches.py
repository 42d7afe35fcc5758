"""Several answers to one prompt: what they share, and that each ends by itself."""

from __future__ import annotations

import pytest

from albireo.contract.plan import (
    Admission,
    Ended,
    Finish,
    SamplingParams,
    Submission,
    branch_names,
    branch_seed,
    branches,
)
from scheduler_svc.core.prefix import shared_blocks

from .samples import prompt, seed_that_stops
from .world import World, world


def admissions(w: World) -> list[Admission]:
    return [admission for plan in w.plans for admission in plan.admissions]


def names(w: World) -> list[str]:
    return [admission.request_id for admission in admissions(w)]


def test_branches_are_requests_of_their_own() -> None:
    sampling = SamplingParams(max_tokens=4, seed=2**64 - 1, prompt_logprobs=3)
    alone = Submission("r", (1, 2), sampling, -1, 2.0)
    assert branches(alone) == (alone,)
    several = branches(Submission("r", (1, 2), sampling, -1, 2.0, n=3))
    assert [branch.request_id for branch in several] == ["r#0", "r#1", "r#2"]
    assert {(b.prompt, b.priority, b.timeout_s, b.n) for b in several} == {((1, 2), -1, 2.0, 1)}
    assert [branch.sampling.prompt_logprobs for branch in several] == [3, -1, -1]
    assert several[0].sampling.seed == sampling.seed


def test_seeds_of_branches_are_splitmix64s_numbers() -> None:
    assert branch_seed(0, 0) == 0
    assert [branch_seed(0, branch) for branch in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    seeds = {branch_seed(seed, branch) for seed in (0, 1, 2**64 - 1) for branch in range(16)}
    assert len(seeds) == 48
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_the_prompt_is_computed_once(ahead: int, prefix_cache: bool) -> None:
    """Also before its blocks have settled. 40 tokens are two full blocks and one that each has alone."""
    w = world(chunk=64, ahead=ahead, prefix_cache=prefix_cache)
    w.submit("r", prompt(40), max_tokens=6, ignore_eos=True, n=4)
    w.step()
    while len(admissions(w)) < 4:
        w.step()
    first, *others = admissions(w)
    assert (first.num_cached, [other.num_cached for other in others]) == (0, [32] * 3)
    assert [sum(chunk.count for chunk in plan.chunks) for plan in w.plans[:2]] == [40, 3 * 8]
    tables = list(w.auditor.tables.values())
    assert all(table[:2] == tables[0][:2] for table in tables)
    assert len({table[2] for table in tables}) == 4
    assert w.core.stats().blocks_free == 64 - 2 - 4
    w.drain(20)
    assert w.core.stats().prefix_hit_tokens == 96


def test_a_prompt_of_full_blocks_shares_all_but_the_last() -> None:
    """Its last token must be computed, and no row writes into a block that others hold."""
    w = world(chunk=64)
    w.submit("r", prompt(32), max_tokens=3, ignore_eos=True, n=2)
    w.drain(10)
    assert [admission.num_cached for admission in admissions(w)] == [0, 16]


def test_held_branches_do_not_keep_later_requests_from_a_slot() -> None:
    w = world(max_seqs=3, chunk=16)
    w.submit("long", prompt(100), max_tokens=4, ignore_eos=True, n=2)
    w.submit("b", prompt(10, 1), max_tokens=4, ignore_eos=True)
    w.plan()
    assert names(w) == ["long#0", "b"]
    assert w.core.stats().waiting == 1
    w.drain(20)
    assert names(w) == ["long#0", "b", "long#1"]


def test_branches_keep_their_place_in_the_order() -> None:
    w = world(max_seqs=2, chunk=64)
    w.submit("r", prompt(20), max_tokens=3, ignore_eos=True, n=3)
    w.submit("late", prompt(10, 1), max_tokens=3, ignore_eos=True)
    w.plan()  # the second slot goes to the one that can use it
    w.drain(20)
    assert names(w) == ["r#0", "late", "r#1", "r#2"]


def test_with_one_slot_a_branch_follows_the_other_by_the_prefix_cache() -> None:
    w = world(max_seqs=1, chunk=64)
    w.submit("r", prompt(40), max_tokens=3, ignore_eos=True, n=3)
    w.drain(30)
    assert [admission.num_cached for admission in admissions(w)] == [0, 32, 32]


def test_a_branch_whose_only_row_is_in_flight_still_lends_its_blocks() -> None:
    w = world(chunk=64, ahead=2, prefix_cache=False)
    w.submit("r", prompt(40), max_tokens=1, n=3)
    w.plan()
    plan = w.plan()
    assert plan is not None
    assert plan.released == (0,)  # its end by length is foreseen
    assert [admission.num_cached for admission in plan.admissions] == [32, 32]
    w.drain(10)


def test_one_that_ends_early_leaves_the_shared_blocks_to_the_others() -> None:
    w = world(chunk=64)
    seed = seed_that_stops(prompt(40), after=2)
    w.submit("r", prompt(40), max_tokens=12, seed=seed, n=3)
    w.drain(30)
    assert len(w.stories["r#0"].read) == 2
    assert max(len(w.stories[name].read) for name in branch_names("r", 3)) > 2


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_cancelling_a_request_ends_all_its_branches_at_once(steps: int) -> None:
    """While branches are held, wait for a slot, or run."""
    w = world(max_seqs=2, chunk=16)
    w.submit("r", prompt(40), max_tokens=30, ignore_eos=True, n=3)
    for _ in range(steps):
        w.step()
    assert w.cancel("r")
    w.plan()
    assert sorted(w.ended()) == [Ended(name, Finish.CANCELLED) for name in branch_names("r", 3)]
    assert not w.cancel("r")
    w.drain(5)


def test_cancelling_a_branch_leaves_the_others() -> None:
    w = world(chunk=64)
    w.submit("r", prompt(40), max_tokens=9, ignore_eos=True, n=3)
    w.step()
    w.step()
    assert w.cancel("r#1")
    w.drain(20)
    assert [w.stories[name].final for name in branch_names("r", 3)] == [
        Finish.LENGTH,
        Finish.CANCELLED,
        Finish.LENGTH,
    ]


def test_when_the_first_branch_ends_before_its_prefill_the_next_goes_first() -> None:
    w = world(chunk=16)
    w.submit("r", prompt(80), max_tokens=5, ignore_eos=True, n=4)
    w.step()
    assert w.cancel("r#0")
    assert w.cancel("r#2")  # still held
    w.drain(30)
    assert names(w) == ["r#0", "r#1", "r#3"]
    assert admissions(w)[-1].num_cached == 64


def test_a_deadline_ends_all_branches() -> None:
    w = world(max_seqs=2, chunk=64)
    w.submit("r", prompt(40), max_tokens=50, ignore_eos=True, n=3, timeout_s=2.0)
    w.step()
    w.step()
    w.advance(2.0)
    w.drain(5)
    assert {story.final for story in w.stories.values()} == {Finish.DEADLINE}


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("ahead", [1, 2])
def test_a_preempted_branch_comes_back_to_the_prompt_of_the_others(ahead: int, prefix_cache: bool) -> None:
    w = world(num_blocks=8, max_model_len=96, chunk=64, ahead=ahead, prefix_cache=prefix_cache)
    w.submit("r", prompt(33), max_tokens=50, seed=1, n=4)  # this seed's branches end one by one
    w.drain(200)
    again = [admission for admission in admissions(w) if admission.num_outputs]
    assert "r#0" not in {admission.request_id for admission in again}
    assert any(admission.num_cached >= 32 for admission in again)


def test_log_probabilities_of_the_prompt_are_computed_though_it_is_cached() -> None:
    w = world(chunk=64)
    w.submit("a", prompt(40), max_tokens=1)
    w.drain(10)
    w.submit("r", prompt(40), max_tokens=3, ignore_eos=True, n=2, prompt_logprobs=2)
    w.drain(10)
    first, other = admissions(w)[1:]
    assert (first.num_cached, first.sampling.prompt_logprobs) == (0, 2)
    assert (other.num_cached, other.sampling.prompt_logprobs) == (32, -1)


def test_they_are_told_again_only_where_a_prefill_was_broken_off() -> None:
    w = world(num_blocks=4, max_model_len=64, chunk=64)
    w.submit("old", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("new", prompt(7, 1), max_tokens=40, ignore_eos=True, prompt_logprobs=0)
    w.drain(300)
    first, *again = [admission for admission in admissions(w) if admission.request_id == "new"]
    assert first.sampling.prompt_logprobs == 0
    assert again
    assert all(admission.num_outputs and admission.sampling.prompt_logprobs == -1 for admission in again)


@pytest.mark.parametrize(("n", "outputs"), [(0, ()), (17, ()), (2, (1,))])
def test_so_many_branches_cannot_run(n: int, outputs: tuple[int, ...]) -> None:
    w = world()
    submission = Submission("r", prompt(10), SamplingParams(max_tokens=5, seed=0), n=n)
    with pytest.raises(ValueError, match="branches"):
        w.core.submit(submission, 0.0, outputs=outputs)
    assert w.plan() is None


def test_a_second_submission_of_live_branches_is_left_out() -> None:
    w = world(chunk=64)
    w.submit("r", prompt(10), max_tokens=5, ignore_eos=True, n=2)
    w.core.submit(Submission("r", prompt(10), SamplingParams(max_tokens=5, seed=0)), w.now)
    assert w.core.stats().waiting == 2
    w.drain(10)


def test_the_audit_sees_a_shared_block_that_would_be_written() -> None:
    w = world(chunk=64)
    w.submit("r", prompt(20), max_tokens=20, ignore_eos=True, n=2)
    w.step()
    w.step()
    one, two = sorted(w.group.core.ledger.occupied.values(), key=lambda occupancy: occupancy.slot)
    w.group.core.ledger.pool.share(one.blocks[1:])
    w.group.core.ledger.pool.drop(two.blocks[1:])
    two.blocks[1:] = one.blocks[1:]
    assert any("will write block" in wrong for wrong in w.core.check_integrity())


def test_a_preempted_branch_takes_its_own_cached_outputs_where_they_reach_further() -> None:
    w = world(num_blocks=8, max_model_len=128, chunk=64)
    w.submit("old", prompt(15, 1), max_tokens=20, ignore_eos=True)
    w.submit("r", prompt(33), max_tokens=60, ignore_eos=True, n=2)
    w.drain(200)
    again = next(admission for admission in admissions(w) if admission.num_outputs)
    assert (again.request_id, again.num_outputs, again.num_cached) == ("r#1", 17, 48)


@pytest.mark.parametrize(("plans", "lent"), [(2, 0), (4, 3)])
def test_a_released_branch_lends_what_it_has_computed_and_nothing_else(plans: int, lent: int) -> None:
    """Preempted in the middle of its prefill, or after it; 60 tokens in chunks of 16."""
    w = world(chunk=16, ahead=4, prefix_cache=False)
    w.submit("r", prompt(60), max_tokens=9, n=2)
    for _ in range(plans):
        w.plan()
    ledger = w.group.core.ledger
    first, other = ledger.requests.live["r#0"], ledger.requests.live["r#1"]
    assert first.occupancy is not None
    ledger.release(first.occupancy.slot)
    assert shared_blocks(ledger, other) == first.occupancy.blocks[:lent]
