from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from evfi.errors import ConfigError
from evfi.sampling.config import SamplingConfig


def test_defaults_are_the_published_settings() -> None:
    config = SamplingConfig()
    assert (config.num_inference_steps, config.tile_width, config.tile_height, config.tile_overlap) == (
        25,
        512,
        320,
        0.1,
    )
    assert (config.min_guidance_scale, config.max_guidance_scale, config.s_churn) == (1.0, 3.0, 0.5)
    assert (config.fps, config.motion_bucket_id, config.noise_aug_strength) == (7, 127, 0.02)


def test_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SamplingConfig().fps = 3  # type: ignore[misc]


def test_what_the_user_asks_for_goes_before_the_models_defaults() -> None:
    config = SamplingConfig.from_defaults({"num_inference_steps": 5, "fps": 9}, fps=11, upscale=None)
    assert (config.num_inference_steps, config.fps, config.upscale) == (5, 11, 1)


def test_unknown_settings_are_errors_that_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown sampling setting steps; known are num_inference_steps, "):
        SamplingConfig.from_defaults({}, steps=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_overlap": 1.0}, r"tile_overlap must be in \[0, 1\), got 1.0"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, got 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number, got 2.5"),
        ({"num_inference_steps": True}, "must be a whole number"),
        ({"s_churn": float("nan")}, "s_churn must be finite"),
        ({"s_churn": "0.5"}, "s_churn must be a number"),
        ({"size_mode": "stretch"}, "size_mode must be one of pad, resize, got 'stretch'"),
        ({"min_guidance_scale": 4.0}, r"max_guidance_scale must be at least min_guidance_scale \(4.0\), got 3.0"),
        ({"detail_restoration": 1}, "detail_restoration must be true or false"),
        ({"solver": "heun"}, "solver must be one of euler, dpmpp_2m, adams_bashforth, got 'heun'"),
        ({"solver": "dpmpp_2m"}, "solver dpmpp_2m needs s_churn 0, got 0.5; set s_churn 0 or solver euler"),
        ({"guidance_start": 0.5, "guidance_end": 0.4}, r"must be in order in \[0, 1\], got 0.5 and 0.4"),
        ({"guidance_end": 1.5}, r"must be in order in \[0, 1\], got 0.0 and 1.5"),
        ({"reuse_interval": 0}, "reuse_interval must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig.from_defaults(settings)


def test_whole_numbers_pass_as_numbers() -> None:
    assert SamplingConfig(s_churn=0).s_churn == 0.0


def test_guidance_of_one_needs_no_unconditional_half() -> None:
    assert not SamplingConfig(max_guidance_scale=1.0).is_guided
    assert SamplingConfig().is_guided
    assert SamplingConfig(min_guidance_scale=0.5, max_guidance_scale=0.5).is_guided
