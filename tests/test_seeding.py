"""One stream per purpose; global generators left as they were."""

import random

import numpy as np
import pytest
import torch

from nfa.seeding import generator, untouched


def draw(seed: int, purpose: str) -> torch.Tensor:
    return torch.rand(4, generator=generator(seed, purpose))


def states() -> list[object]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, keys.tolist(), rest, torch.get_rng_state().tolist()]


def disturb() -> None:
    random.random(), np.random.rand(), torch.rand(1)


def test_a_stream_depends_on_seed_and_purpose_and_nothing_else():
    first = draw(1717, "split")
    disturb()
    draw(1717, "init")
    assert torch.equal(draw(1717, "split"), first)
    for seed, purpose in ((1718, "split"), (1717, "init"), (1717, "order/0"), (1717, "order/1"), (17, "17/split")):
        assert not torch.equal(draw(seed, purpose), first)


def test_a_stream_is_the_same_in_every_release():
    """Stored runs can be resumed only while these numbers stay what they are."""
    assert torch.randint(1000, (4,), generator=generator(1717, "split")).tolist() == [923, 447, 241, 104]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_every_allowed_seed_works(seed):
    assert draw(seed, "init").isfinite().all()


def test_making_a_stream_draws_from_no_global_generator():
    before = states()
    draw(3, "probe")
    assert states() == before


def test_untouched_restores_every_global_generator():
    before = states()
    with untouched():
        disturb()
        torch.manual_seed(0)
        assert states() != before
    assert states() == before


def test_untouched_restores_after_an_exception():
    before = states()

    @untouched()
    def fail() -> None:
        disturb()
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert states() == before


def test_untouched_does_not_reseed_inside():
    """What is drawn inside goes on from the state outside."""
    state = torch.get_rng_state()
    expected = torch.rand(3)
    torch.set_rng_state(state)
    with untouched():
        assert torch.equal(torch.rand(3), expected)
