from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evfi.errors import ConfigError, ResourceError
from evfi.evaluation import ground_truth, model_system
from evfi.evaluation.ground_truth import VaeTruth, scored_size_frame
from evfi.evaluation.model_system import load_vae_truth
from evfi.evaluation.systems import SystemRequest
from evfi.interpolator import Interpolator, from_picture
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from evfi.video.geometry import resize_frame
from tiny_models import tiny_bundle


@pytest.fixture(scope="module")
def temporal() -> ModelBundle:
    return tiny_bundle(temporal_vae=True)


def _frames(number: int = 4, height: int = 16, width: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def test_the_scored_size() -> None:
    (frame,) = _frames(1, 35, 50)
    assert scored_size_frame(frame, "original") is frame
    floored = scored_size_frame(frame, "floor8")
    assert (floored == resize_frame(frame, (48, 32))).all()
    assert scored_size_frame(floored, "floor8") is floored
    with pytest.raises(ConfigError, match=r"^frames must be at least 8x8 pixels for size mode 'resize', got 50x7; "):
        scored_size_frame(frame[:7], "floor8")


def test_the_steps_are_upscale_encode_sampled_decode_and_back(temporal: ModelBundle) -> None:
    """Without noise the sample is the mode: then every step can be followed."""
    frames = _frames(3)
    vae = temporal.vae
    truth = VaeTruth(temporal, 2, 2)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground_truth, "_frame_noise", lambda key, shape: torch.zeros(shape))
        passed = truth.pass_through(frames, "a", range(3), 0)
        large = [resize_frame(frame, (48, 32), "BICUBIC") for frame in frames]
        codes = torch.cat([encode_pixels(vae, from_picture(picture)[None]) for picture in large])
        levels = decode_latents(vae, codes * vae.config.scaling_factor, 2) * 127.5 + 127.5
    pictures = levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    assert (passed == np.stack([resize_frame(picture, (24, 16)) for picture in pictures])).all()


def test_noise_is_that_of_seed_sequence_and_frame_whatever_the_order(temporal: ModelBundle) -> None:
    frames = _frames(4)
    truth = VaeTruth(temporal, 1, 1)
    whole = truth.pass_through(frames, "a", [10, 11, 12, 13], 5)
    assert (truth.pass_through(frames[::-1], "a", [13, 12, 11, 10], 5)[::-1] == whole).all()
    assert (truth.pass_through(frames[2:3], "a", [12], 5) == whole[2:3]).all()
    for other in (("b", 12, 5), ("a", 11, 5), ("a", 12, 6)):
        assert (truth.pass_through(frames[2:3], other[0], [other[1]], other[2]) != whole[2:3]).any()


def test_a_temporal_decoder_sees_its_chunk_of_the_window(temporal: ModelBundle) -> None:
    frames = _frames(4)
    whole = VaeTruth(temporal, 1, 2).pass_through(frames, "a", range(4), 0)
    changed = frames.copy()
    changed[3] = 255 - changed[3]
    again = VaeTruth(temporal, 1, 2).pass_through(changed, "a", range(4), 0)
    assert (again[:2] == whole[:2]).all()
    assert (again[3] != whole[3]).any()


def test_an_autoencoder_without_a_posterior_is_taken_as_it_is() -> None:
    truth = VaeTruth(tiny_bundle(), 1, 2)
    frames = _frames(3)
    first = truth.pass_through(frames, "a", range(3), 0)
    assert first.shape == frames.shape
    assert first.dtype == np.uint8
    assert (truth.pass_through(frames, "b", range(3), 1) == first).all()
    assert truth.settings["encoded"] == "as it is (no posterior)"


def test_the_fingerprint_is_that_of_weights_and_settings(temporal: ModelBundle) -> None:
    truths = [
        VaeTruth(temporal, 1, 2),
        VaeTruth(temporal, 2, 2),
        VaeTruth(temporal, 1, 3),
        VaeTruth(tiny_bundle(), 1, 2),
    ]
    assert len({truth.fingerprint for truth in truths}) == 4
    assert VaeTruth(temporal, 1, 2).fingerprint == truths[0].fingerprint
    assert truths[0].settings["encoded"] == "sampled"


def test_what_a_caller_can_do_wrong_is_told(temporal: ModelBundle) -> None:
    with pytest.raises(ConfigError, match=r"^upscale must be at least 1, got 0$"):
        VaeTruth(temporal, 0, 1)
    with pytest.raises(ConfigError, match=r"^decode_chunk_size must be at least 1, got 0$"):
        VaeTruth(temporal, 1, 0)
    with pytest.raises(ConfigError, match=r"^expected one number for each of 3 frames, got 2$"):
        VaeTruth(temporal, 1, 1).pass_through(_frames(3), "a", range(2), 0)


def test_too_little_memory_is_told(temporal: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ground_truth, "decode_latents", fail)
    expected = (
        r"^not enough memory to pass 2 frames of 48x32 px through the autoencoder on cpu; lower decode_chunk_size \(3\) "
        r"or upscale \(2\)$"
    )
    with pytest.raises(ResourceError, match=expected):
        VaeTruth(temporal, 2, 3).pass_through(_frames(2), "a", range(2), 0)


def test_it_is_loaded_with_the_models_settings(temporal: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        model_system.Interpolator, "from_pretrained", classmethod(lambda cls, *_: Interpolator(temporal))
    )
    request = SystemRequest("ours", "model", "tiny", {"upscale": 2, "decode_chunk_size": 3})
    truth = load_vae_truth(request, "cpu", None)
    assert truth.fingerprint == VaeTruth(temporal, 2, 3).fingerprint
    expected = "^ground truth can only be passed through a model's autoencoder, but hold is baseline; name a model$"
    with pytest.raises(ConfigError, match=expected):
        load_vae_truth(SystemRequest("hold", "baseline", "hold"), "cpu", None)
