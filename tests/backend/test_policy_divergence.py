"""The estimates of the KL against the exact one, by writing out every response of a tiny vocabulary."""

import itertools

import numpy as np
import pytest
import tiny
import torch

from ser_backend.policy.divergence import of_logits
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.writer import open_writer, upto_end

END, WORDS, LONG = 0, 3, 4


def tables(seed):
    """Logits of the next token after each beginning: the first tokens so far -> (vocabulary,)."""
    made = {}

    def after(beginning):
        if beginning not in made:
            made[beginning] = torch.tensor(np.random.default_rng([seed, 7, *beginning]).normal(0, 1.5, WORDS))
        return made[beginning]

    return after


def responses():
    """All that can be written: they end with END, or after LONG tokens."""
    found = [(*w, END) for n in range(LONG) for w in itertools.product(range(1, WORDS), repeat=n)]
    return found + list(itertools.product(range(1, WORDS), repeat=LONG))


def told(policy, start):
    every = responses()
    width = max(map(len, every))
    tokens = torch.tensor([[*r] + [END] * (width - len(r)) for r in every])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in every])
    logits = [
        torch.stack([torch.stack([m(tuple(r[:i])) for i in range(width)]) for r in every]) for m in (policy, start)
    ]
    chance = (logits[0].log_softmax(-1).gather(-1, tokens[..., None])[..., 0] * mask).sum(-1).exp()
    return chance, of_logits(*logits, tokens, mask)


def test_both_estimates_are_unbiased_for_the_exact_kl_and_the_summed_one_is_less_noisy():
    policy, start = tables(0), tables(1)
    chance, found = told(policy, start)
    assert chance.sum() == pytest.approx(1)
    other, _ = told(start, policy)
    exact = (chance * (chance.log() - other.log())).sum()
    assert (chance * found.sampled).sum() == pytest.approx(exact)
    assert (chance * found.summed).sum() == pytest.approx(exact)
    spread = [(chance * (x - exact) ** 2).sum() for x in (found.summed, found.sampled)]
    assert spread[0] < 0.6 * spread[1]
    assert (found.summed >= 0).all()


def test_the_entropy_is_that_of_the_response():
    chance, found = told(tables(0), tables(1))
    assert (chance * found.entropy).sum() == pytest.approx(-(chance * chance.log()).sum())


def test_a_policy_is_no_way_from_itself_and_tokens_ruled_out_make_no_nan():
    _, found = told(tables(0), tables(0))
    assert found.summed.abs().max() < 1e-6
    logits = torch.tensor([[[0.0, 1.0, -torch.inf]]])
    found = of_logits(logits, logits, torch.tensor([[1]]), torch.tensor([[1]]))
    assert torch.isfinite(torch.stack(found)).all()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_measured_does_not_depend_on_padding_or_company(tmp_path, kind):
    settings = PolicySettings(max_prompt_tokens=40, max_new_tokens=20, threads=1)
    writer = open_writer(tiny.build(kind, tmp_path / "a"), settings)
    writer.reference = open_writer(tiny.build(kind, tmp_path / "b", seed=1), settings).model
    prompts = writer.prompt_ids(["what is it", "why the answer of a kind reason, and how", "on"])
    written = [[5, 6, 7], [9], [4, 4, 8, 9, 10, 11]]
    together = writer.measured(prompts, written, 0.7)
    alone = [writer.measured([p], [w], 0.7) for p, w in zip(prompts, written, strict=True)]
    for name in together:
        assert together[name] == pytest.approx([float(one[name][0]) for one in alone], abs=1e-4)
    assert (together["kl"] > 0.01).all()


def test_running_out_of_memory_measures_fewer_at_a_time_and_the_same(tmp_path, monkeypatch):
    settings = PolicySettings(max_prompt_tokens=40, max_new_tokens=20, threads=1)
    writer = open_writer(tiny.build("llama", tmp_path / "a"), settings)
    writer.reference = open_writer(tiny.build("llama", tmp_path / "b", seed=1), settings).model
    prompts = writer.prompt_ids(["what is it", "why", "on", "how", "a kind reason"])
    written = [[5, 6, 7], [9], [4, 4, 8, 9, 10, 11], [8, 8], [3]]
    expected = writer.measured(prompts, written, 0.7)
    compared, sizes = type(writer)._compared, []

    def little_memory(self, prompts, responses, temperature):
        sizes.append(len(prompts))
        if len(prompts) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compared(self, prompts, responses, temperature)

    monkeypatch.setattr(type(writer), "_compared", little_memory)
    most = 2
    found = writer.measured(prompts, written, 0.7)
    assert sizes[:2] == [5, 2]
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=1e-4)
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        writer.measured(prompts, written, 0.7)


def test_samples_end_at_their_end_are_repeatable_and_disturb_nothing(tmp_path):
    settings = PolicySettings(max_prompt_tokens=40, max_new_tokens=12, threads=1)
    writer = open_writer(tiny.build("llama", tmp_path / "a"), settings)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = list(writer.samples(["what is", "how"], 5, settings, 1))
    assert torch.equal(torch.rand(3), expected)
    assert one == list(writer.samples(["what is", "how"], 5, settings, 1))
    assert one != list(writer.samples(["what is", "how"], 5, settings, 2))
    assert [s.place for s in one] == [0] * 5 + [1] * 5
    assert len({s.text for s in one}) > 5
    assert upto_end([4, 2, 7, 2], [2]) == [4, 2]
