from __future__ import annotations

import itertools

import torch

from evfi.sampling.noise import SeededNoise

SHAPE = (2, 3, 4)


def test_equal_arguments_give_equal_noise_whatever_was_drawn_before() -> None:
    first, second = SeededNoise(7, 3), SeededNoise(7, 3)
    second.draw("initial", (100,))
    torch.rand(10)
    assert torch.equal(first.draw("churn", SHAPE, 2, 1), second.draw("churn", SHAPE, 2, 1))


def test_every_argument_matters() -> None:
    draws = [
        SeededNoise(0, 0).draw("churn", SHAPE),
        SeededNoise(1, 0).draw("churn", SHAPE),
        SeededNoise(0, 1).draw("churn", SHAPE),
        SeededNoise(0, 0).draw("reinjection", SHAPE),
        SeededNoise(0, 0).draw("churn", SHAPE, 1),
        SeededNoise(0, 0).draw("churn", SHAPE, 0, 1),
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


def test_drawing_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    SeededNoise(0).draw("image", SHAPE)
    assert torch.equal(state, torch.random.get_rng_state())


def test_values_are_pinned() -> None:
    """A stored run must stay reproducible: the seeding may not change unnoticed."""
    found = SeededNoise(0, 0).draw("initial", (3,))
    torch.testing.assert_close(found, torch.tensor(PINNED), rtol=0, atol=1e-6)


PINNED = [-2.3413246, -0.6835944, -1.0635961]
