"""Predictions in batches against the sampler that users run, and pictures that stand for other models' predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events.stacks import event_stacks
from evfi.events.stream import EventStream
from evfi.models.bundle import ModelBundle
from evfi.models.registry import load_model
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import Purpose
from evfi.sampling.two_sided import fusion_weights, sample_window
from evfi.training.motion import Draw
from evfi.training.predictions import Predictor, check_model, degraded_predictions
from tiny_models import tiny_bundle

SIDE = 64
TIMES = np.array([[0, 15_000, 30_000], [500, 10_500, 50_500]])

PLAIN = {"max_guidance_scale": 1.0, "s_churn": 0.0, "noise_aug_strength": 0.0}


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle()


class GivenNoise:
    """Returns the noise that it was given."""

    def __init__(self, initial: Tensor) -> None:
        self._initial = initial

    def draw(self, purpose: Purpose, shape: tuple[int, ...], step: int = 0, repeat: int = 0) -> Tensor:
        if purpose == "image":
            return torch.zeros(shape)
        assert (purpose, step, repeat, shape) == ("initial", 0, 0, tuple(self._initial.shape))
        return self._initial


def stacks_of(bundle: ModelBundle, window: int) -> Tensor:
    rng, times = np.random.default_rng(window), TIMES[window]
    x, y = rng.integers(0, SIDE, (2, 4000))
    events = EventStream.from_arrays(
        x, y, rng.integers(times[0], times[-1], 4000), rng.choice([-1, 1], 4000), (SIDE,) * 2
    )
    return torch.stack(event_stacks(events, times, (SIDE, SIDE), bundle.event_stack))


def test_a_batch_is_what_the_sampler_makes_of_each_window() -> None:
    bundle = load_model("evfi-tiny", dtype=torch.float32, device="cpu")
    generator = torch.Generator().manual_seed(0)
    keys = torch.rand(2, 2, 3, SIDE, SIDE, generator=generator) * 2 - 1
    stacks = torch.stack([stacks_of(bundle, window) for window in range(2)], 1)  # [2 directions, B, F, K, H, W]
    side = SIDE // bundle.vae_factor
    noise = torch.randn(2, 3, bundle.latent_channels, side, side, generator=generator)
    made = Predictor(bundle).sample(keys, *stacks, torch.from_numpy(TIMES), noise)
    assert made.shape == (2, 3, 3, SIDE, SIDE)
    config = SamplingConfig.from_defaults(bundle.sampling)
    for window in range(2):
        inputs, weights = WindowInputs(keys[window], stacks[:, window]), fusion_weights(torch.from_numpy(TIMES[window]))
        with torch.inference_mode():
            latents = sample_window(bundle, inputs, config, GivenNoise(noise[window]), weights=weights)
            expected = bundle.decode(latents, 3).clamp(-1, 1)
        torch.testing.assert_close(made[window], expected, rtol=0, atol=1e-4)
    assert float((made[0, 1] - made[1, 1]).abs().mean()) > 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_guidance_scale": 3.0}, "without guidance"),
        ({"s_churn": 0.5}, "has s_churn 0.5"),
        ({"noise_aug_strength": 0.02}, "has noise_aug_strength 0.02"),
        ({"solver": "dpmpp_2m"}, "has solver dpmpp_2m"),
        ({"num_reinjections": 2}, "has num_reinjections 2"),
    ],
)
def test_models_that_sample_otherwise_are_refused(
    bundle: ModelBundle, changes: dict[str, object], message: str
) -> None:
    plain = replace(bundle, sampling=PLAIN)
    assert check_model(plain).s_churn == 0
    with pytest.raises(ConfigError, match=message) as refused:
        check_model(replace(bundle, sampling={**PLAIN, **changes}))
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="image encoder"):
        check_model(replace(plain, image_encoder=tiny_bundle(image_encoder=True).image_encoder))


@pytest.mark.parametrize("lossy", [False, True])
def test_degraded_predictions_are_like_the_truth_and_err_alike_in_a_window(bundle: ModelBundle, lossy: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1, scale_factor=4.0, mode="bicubic"
    )
    truth = smooth.clamp(-1, 1).unsqueeze(1).expand(-1, 2, -1, -1, -1)
    autoencoder = bundle.vae if lossy else None
    made = degraded_predictions(truth, autoencoder, Draw(torch.Generator().manual_seed(1)))
    same = degraded_predictions(truth, autoencoder, Draw(torch.Generator().manual_seed(1)))
    assert torch.equal(made, same)
    assert made.shape == truth.shape
    assert float(made.abs().max()) <= 1
    torch.testing.assert_close(made[:, 0], made[:, 1], rtol=0, atol=1e-5)
    errors = (made - truth).abs().mean((1, 2, 3, 4))
    assert (errors > 0.01).all()
    assert errors.unique().numel() == 3
    if not lossy:
        assert (errors < 0.3).all()
