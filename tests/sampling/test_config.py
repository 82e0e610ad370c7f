from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from evfi.errors import ConfigError
from evfi.sampling import config as module
from evfi.sampling.config import RETIRED_SETTINGS, SamplingConfig, without_retired


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
    with pytest.raises(ConfigError, match=r"unknown sampling setting steps; expected one of num_inference_steps, "):
        SamplingConfig.from_defaults({}, steps=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_overlap": 0.95}, r"tile_overlap must be from 0 to 0\.9, got 0\.95"),
        ({"num_inference_steps": 0}, "num_inference_steps must be from 1 to 1000, got 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number, got 2.5"),
        ({"num_inference_steps": True}, "must be a whole number"),
        ({"s_churn": float("nan")}, "s_churn must be finite"),
        ({"s_churn": "0.5"}, "s_churn must be a number"),
        ({"size_mode": "stretch"}, "size_mode must be one of pad, resize, got 'stretch'"),
        ({"min_guidance_scale": 4.0}, r"max_guidance_scale must be at least min_guidance_scale \(4.0\), got 3.0"),
        ({"refinement": 1}, "refinement must be true or false"),
        (
            {"refinement": False, "diffusion": False},
            "refinement and diffusion are both off",
        ),
        ({"solver": "heun"}, "solver must be one of euler, dpmpp_2m, adams_bashforth, got 'heun'"),
        ({"solver": "dpmpp_2m"}, "solver dpmpp_2m needs s_churn 0, got 0.5; set s_churn 0 or solver euler"),
        ({"guidance_start": 0.5, "guidance_end": 0.4}, r"must be in order in \[0, 1\], got 0.5 and 0.4"),
        ({"guidance_end": 1.5}, r"must be in order in \[0, 1\], got 0.0 and 1.5"),
        ({"reuse_interval": 0}, "reuse_interval must be from 1 to 1000, got 0"),
        ({"num_inference_steps": 10**9}, "num_inference_steps must be from 1 to 1000, got 1000000000"),
        ({"tile_width": 10**9}, "tile_width must be from 8 to 65536, got 1000000000"),
        ({"tile_height": 10**5000}, "tile_height must be from 8 to 65536, got a larger number"),
        ({"upscale": 1000}, "upscale must be from 1 to 8, got 1000"),
        ({"max_guidance_scale": 1e30}, "max_guidance_scale must be from 0 to 100, got 1e[+]30"),
        ({"s_churn": 10**400}, "s_churn must be finite"),
        ({"num_reinjections": 10**6}, "num_reinjections must be from 0 to 100"),
        ({"batch_size": 10**6}, "batch_size must be from 1 to 4096"),
        ({"solver": "x" * 10_000}, "got 'x{59}…$"),
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


class TestRetiredSettings:
    """Files keep them for good; nobody else may give them."""

    @pytest.fixture(autouse=True)
    def nothing_told_yet(self) -> None:
        module._warn_of_retired.cache_clear()

    def test_none_of_them_is_a_setting(self) -> None:
        assert not RETIRED_SETTINGS.keys() & {field.name for field in fields(SamplingConfig)}

    @pytest.mark.parametrize("name", RETIRED_SETTINGS)
    def test_in_a_models_defaults_it_is_left_out_with_one_warning(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            assert SamplingConfig.from_defaults({name: False, "fps": 9}, upscale=2) == SamplingConfig(fps=9, upscale=2)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert (
            f"setting {name}, read from a file, has no effect since version 0.1.0: the refiner" in record.getMessage()
        )

    def test_what_there_is_stays(self, caplog: pytest.LogCaptureFixture) -> None:
        given = {"fps": 9, "unknown": 1}
        assert without_retired(given) == given
        assert not caplog.records

    @pytest.mark.parametrize("name", RETIRED_SETTINGS)
    def test_given_it_is_an_error_that_says_what_to_use(self, name: str) -> None:
        message = rf"^sampling setting {name} was removed in version 0\.1\.0; leave it out: .*refinement = false"
        for value in (True, False, None):
            with pytest.raises(ConfigError, match=message):
                SamplingConfig.from_defaults({}, **{name: value})
        with pytest.raises(ConfigError, match=message):
            SamplingConfig(**{name: False})
        with pytest.raises(ConfigError, match=message):
            replace(SamplingConfig(), **{name: False})

    def test_an_unknown_keyword_is_still_a_mistake_of_the_program(self) -> None:
        with pytest.raises(TypeError, match="stepz"):
            SamplingConfig(stepz=3)  # type: ignore[call-arg]

    def test_configs_can_be_copied_and_sent(self) -> None:
        config = SamplingConfig(fps=9)
        assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
