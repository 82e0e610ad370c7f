from __future__ import annotations

from typing import Any, get_args

import pytest

from evfi.errors import ConfigError
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import step_modes
from evfi.sampling.presets import PRESETS, PresetName, chosen_config, with_preset


def _network_calls(config: SamplingConfig) -> int:
    return sum(1 + mode.guided for mode in step_modes(config, config.num_inference_steps) if not mode.reuse)


def test_exact_changes_nothing() -> None:
    assert with_preset({"fps": 9}, "exact") == {"fps": 9}


def test_every_name_is_a_preset_with_valid_settings_that_costs_less_than_the_one_before() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    calls = [_network_calls(SamplingConfig.from_defaults(with_preset({}, name))) for name in PRESETS]
    assert calls[0] == 50
    assert calls[1] <= calls[0] / 1.4
    assert calls[2] <= calls[0] / 2
    assert not SamplingConfig.from_defaults(with_preset({}, "warp")).diffusion  # no calls at all


@pytest.mark.parametrize("preset", ["exact", "balanced", "fast"])
def test_a_model_of_few_steps_is_left_as_it_is(preset: PresetName) -> None:
    defaults = {"num_inference_steps": 3, "s_churn": 0.5}
    assert with_preset(defaults, preset) == defaults


@pytest.mark.parametrize("steps", [1, 3, 25])
def test_warp_applies_however_few_the_steps(steps: int) -> None:
    defaults = {"num_inference_steps": steps, "fps": 9}
    assert with_preset(defaults, "warp") == {**defaults, "diffusion": False}
    with pytest.raises(ConfigError, match="refinement and diffusion are both off"):
        SamplingConfig.from_defaults(with_preset(defaults, "warp"), refinement=False)


def test_retired_settings_of_a_model_do_no_harm() -> None:
    assert SamplingConfig.from_defaults(with_preset({"detail_restoration": True}, "warp")) == SamplingConfig(
        diffusion=False
    )


def test_the_preset_goes_before_the_model_and_the_user_before_the_preset() -> None:
    defaults = with_preset({"num_inference_steps": 40, "fps": 9}, "fast")
    config = SamplingConfig.from_defaults(defaults, solver="dpmpp_2m")
    assert config.num_inference_steps == PRESETS["fast"]["num_inference_steps"]
    assert (config.fps, config.solver) == (9, "dpmpp_2m")


@pytest.mark.parametrize(
    ("preset", "given", "idle"),
    [
        ("warp", {"num_inference_steps": 5}, "num_inference_steps"),
        ("warp", {"solver": "euler", "refinement": True, "upscale": 2}, "solver, upscale"),
        ("exact", {"diffusion": False, "fps": 9}, "fps"),
    ],
)
def test_settings_without_effect_are_refused(preset: PresetName, given: dict[str, Any], idle: str) -> None:
    with pytest.raises(ConfigError, match=f"^{idle}: no effect without .*; remove {idle}, or choose another preset$"):
        chosen_config({}, preset, given)
    assert chosen_config({}, "fast", {**given, "diffusion": True}).diffusion


def test_settings_of_model_preset_and_protocol_may_be_without_effect() -> None:
    config = chosen_config({"fps": 9}, "warp", {"refinement": True}, base={"num_inference_steps": 5})
    assert (config.fps, config.num_inference_steps, config.diffusion) == (9, 5, False)
    with pytest.raises(ConfigError, match=r"^fps: no effect"):
        chosen_config({"diffusion": False}, "exact", {"fps": 9})  # the model itself leaves it out


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ConfigError, match="preset must be one of exact, balanced, fast, warp, got 'quick'"):
        with_preset({}, "quick")  # type: ignore[arg-type]


def test_presets_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        PRESETS["fast"]["fps"] = 3  # type: ignore[index]
