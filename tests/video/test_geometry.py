"""Sizes that networks accept, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi.errors import ConfigError
from evfi.video.geometry import FrameGeometry, frame_size, resize_frame
from evfi.video.io import read_image


def noise_frame(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_frame(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + phase) * np.cos(y / 7) for phase in (0, 1, 2)]
    return np.stack([np.round(127 + 100 * wave) for wave in waves], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "multiple", "fitted"), [("pad", 8, (112, 88)), ("resize", 8, (104, 80)), ("pad", 32, (128, 96))]
)
def test_sizes(mode, multiple, fitted):
    geometry = FrameGeometry((106, 83), multiple, mode, upscale=2)
    assert geometry.fitted_size == fitted
    assert geometry.model_size == (2 * fitted[0], 2 * fitted[1])
    assert geometry.content_size == ((212, 166) if mode == "pad" else geometry.model_size)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 24), st.sampled_from(["replicate", "reflect"]))
@settings(max_examples=40, deadline=None)
def test_padding_and_cropping_is_the_identity(width, height, multiple, padding):
    geometry = FrameGeometry((width, height), multiple, padding=padding)
    frame = noise_frame(width, height)
    padded = geometry.to_model(frame)
    assert frame_size(padded)[0] % multiple == 0
    assert frame_size(padded)[1] % multiple == 0
    np.testing.assert_array_equal(geometry.to_original(padded), frame)


def test_padding_continues_the_border():
    frame = noise_frame(5, 3)
    replicated = FrameGeometry((5, 3), 4).fit(frame)
    assert (replicated[:3, 5:] == frame[:, 4:5]).all()
    assert (replicated[3, :5] == frame[2]).all()
    reflected = FrameGeometry((5, 3), 4, padding="reflect").fit(frame)
    np.testing.assert_array_equal(reflected[:3, 5:8], frame[:, [4, 3, 2]])


@pytest.mark.parametrize("mode", ["pad", "resize"])
@pytest.mark.parametrize("upscale", [1, 2, 3])
def test_way_back_keeps_a_smooth_picture(mode, upscale):
    geometry = FrameGeometry((61, 45), 8, mode, upscale)
    frame = smooth_frame(61, 45)
    back = geometry.to_original(geometry.to_model(frame))
    assert frame_size(back) == (61, 45)
    inner = np.abs(back.astype(int) - frame)[3:-3, 3:-3]
    assert inner.max() <= 6


def test_model_padding_is_in_torch_order():
    geometry = FrameGeometry((10, 6), 8, upscale=3)
    assert geometry.model_padding == (0, 18, 0, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiple": 0}, "multiple"),
        ({"upscale": 0}, "upscale"),
        ({"mode": "crop"}, "size mode"),
        ({"padding": "zeros"}, "padding"),
        ({"mode": "resize", "original_size": (7, 20)}, "at least 8x8"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        FrameGeometry(**{"original_size": (20, 20), "multiple": 8, **arguments})


def test_wrong_frames_are_named():
    geometry = FrameGeometry((20, 10), 8)
    with pytest.raises(ConfigError, match="expected a frame of 20x10 pixels, got 10x20"):
        geometry.fit(noise_frame(10, 20))
    with pytest.raises(ConfigError, match="uint8"):
        geometry.fit(np.zeros((10, 20, 3), dtype=np.float32))


def test_resize_of_equal_size_is_the_same_frame():
    frame = noise_frame(4, 4)
    assert resize_frame(frame, (4, 4)) is frame


def test_resize_mode_equals_the_reference(shared_dir: Path):
    conditioning = np.load(shared_dir / "golden" / "bsergb_mini_conditioning.npz", allow_pickle=False)
    paths = sorted((shared_dir / "golden" / "bsergb_mini").rglob("*.png"))
    first = read_image(paths[0])
    fitted = FrameGeometry(frame_size(first), 8, "resize").fit(first)
    np.testing.assert_array_equal(fitted, conditioning["skip3_scale2_idx0.start_image"])
