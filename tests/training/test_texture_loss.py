"""The error of texture: what it punishes, what it forgives, and which autoencoders serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import evfi
from evfi.errors import ConfigError
from evfi.models.bundle import ModelBundle, load_vae
from evfi.training.texture_loss import TEXTURE_MULTIPLE, TextureError
from tiny_models import tiny_bundle

SIDE = 2 * TEXTURE_MULTIPLE


@pytest.fixture(scope="module")
def error() -> TextureError:
    folder = Path(evfi.__file__).parent / "weights" / "evfi-tiny" / "vae"
    return TextureError(load_vae(folder, dtype=torch.float32, device=torch.device("cpu")).requires_grad_(False))


@pytest.fixture(scope="module")
def picture() -> Tensor:
    grain = torch.randn(1, 3, SIDE + 8, SIDE + 8, generator=torch.Generator().manual_seed(0))
    return (0.4 * F.avg_pool2d(grain, 2, 1)).clamp(-1, 1)


def middle(picture: Tensor, right: int = 0) -> Tensor:
    return picture[..., 4 : 4 + SIDE, 4 + right : 4 + right + SIDE]


def blurred(picture: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(picture, (1,) * 4, mode="replicate"), 3, stride=1)


@torch.no_grad()
def test_a_shift_is_forgiven_and_blur_is_not(error: TextureError, picture: Tensor) -> None:
    truth = middle(picture)
    shifted, soft = middle(picture, right=1), middle(blurred(picture))
    assert float(error(truth, truth)) == pytest.approx(0, abs=1e-6)
    assert float(error(soft, truth)) > 2 * float(error(shifted, truth))
    assert float((soft - truth).abs().mean()) < float((shifted - truth).abs().mean())  # errors of pixels say otherwise


def test_only_the_pictures_get_gradients(error: TextureError, picture: Tensor) -> None:
    truth = middle(picture).clone().requires_grad_(True)
    made = middle(blurred(picture)).clone().requires_grad_(True)
    error(made, truth).backward()
    assert truth.grad is None
    assert made.grad is not None
    better = made.detach() - 1e-2 * made.grad / made.grad.abs().max()
    with torch.no_grad():
        assert float(error(better, truth)) < float(error(made, truth))


def test_other_autoencoders_are_refused() -> None:
    bundle: ModelBundle = tiny_bundle(temporal_vae=True)
    with pytest.raises(
        ConfigError, match="texture_weight needs the features of an AutoencoderTiny, but the model has an"
    ):
        TextureError(bundle.vae)
