from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from system_tasks import FLOORED, HEIGHT, WIDTH, window_task

from evfi.errors import ConfigError
from evfi.evaluation import model_system
from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.loading import load_system
from evfi.evaluation.systems import SizeRule, System, SystemRequest
from evfi.fingerprints import weights_fingerprint
from evfi.interpolator import Interpolator, to_pictures, window_inputs
from evfi.models.bundle import ModelBundle
from evfi.models.refiner import Refiner
from evfi.sampling.config import PIXELS_VERSION, SamplingConfig
from evfi.sampling.noise import SeededNoise
from evfi.sampling.presets import PRESETS
from evfi.sampling.two_sided import fusion_weights, sample_window
from evfi.video.geometry import FrameGeometry, resize_frame
from tiny_models import tiny_bundle

FAST = {"num_inference_steps": 1, "max_guidance_scale": 1.0}


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle(factor=8)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, bundle: ModelBundle) -> None:
    monkeypatch.setattr(model_system.Interpolator, "from_pretrained", classmethod(lambda cls, *_: Interpolator(bundle)))


def _baseline(name: str, size: SizeRule = "original") -> System:
    return load_system(SystemRequest(name, "baseline", name), size, "cpu")


def _model(size: SizeRule = "original", **settings: Any) -> System:
    return load_system(SystemRequest("ours", "model", "tiny", FAST | settings), size, "cpu")


def test_hold_shows_the_key_frame_before() -> None:
    task = window_task()
    frames = _baseline("hold").make(task)
    assert frames.shape == (5, HEIGHT, WIDTH, 3)
    assert (frames[:4] == task.window.start_image).all()
    assert (frames[4] == task.window.end_image).all()


def test_linear_mixes_by_time() -> None:
    task = window_task()
    frames = _baseline("linear").make(task)
    start, end = task.window.start_image.astype(float), task.window.end_image.astype(float)
    assert (frames[1] == np.rint(0.75 * start + 0.25 * end)).all()
    assert (frames[[0, -1]] == np.stack([task.window.start_image, task.window.end_image])).all()


@pytest.mark.parametrize("name", ["hold", "linear"])
def test_baselines_work_on_the_floored_key_frames(name: str) -> None:
    task = window_task()
    frames = _baseline(name, "floor8").make(task)
    assert frames.shape == (5, *FLOORED, 3)
    assert (frames[0] == scored_size_frame(task.window.start_image, "floor8")).all()
    assert (frames[-1] == scored_size_frame(task.window.end_image, "floor8")).all()


def test_baselines_say_who_they_are() -> None:
    infos = [_baseline(name).info for name in ("hold", "linear")]
    assert [info.settings for info in infos] == [{"baseline": "hold"}, {"baseline": "linear"}]
    assert infos[0].fingerprint != infos[1].fingerprint
    assert (infos[0].kind, infos[0].device, infos[0].licence) == ("baseline", "", "")


def test_an_unknown_baseline_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^no baseline 'flow'; known are hold, linear, rife$"):
        _baseline("flow")


def test_only_models_take_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^baseline hold takes no settings, got fps$"):
        load_system(SystemRequest("hold", "baseline", "hold", {"fps": 3}), "original", "cpu")
    with pytest.raises(ConfigError, match=r"^frames theirs takes no settings, got fps$"):
        load_system(SystemRequest("theirs", "frames", str(tmp_path), {"fps": 3}), "original", "cpu")


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^a system must be a model, a baseline or frames, got 'magic'$"):
        load_system(SystemRequest("a", "magic", "b"), "original", "cpu")  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny")
def test_a_model_makes_what_the_interpolator_makes(bundle: ModelBundle) -> None:
    task = window_task()
    interpolator = Interpolator(bundle, SamplingConfig.from_defaults(bundle.sampling, **FAST))
    system = _model()
    assert (system.make(task) == interpolator.interpolate_window(task.window, seed=task.seed)).all()
    assert system.notes == []


def test_a_preset_goes_before_the_models_settings_and_after_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle(factor=8)
    bundle.sampling["num_inference_steps"] = 40
    monkeypatch.setattr(model_system.Interpolator, "from_pretrained", classmethod(lambda cls, *_: Interpolator(bundle)))
    request = SystemRequest("ours", "model", "tiny", {"solver": "dpmpp_2m"}, "fast")
    settings = load_system(request, "original", "cpu").info.settings
    assert settings["num_inference_steps"] == PRESETS["fast"]["num_inference_steps"]
    assert (settings["s_churn"], settings["solver"]) == (0.0, "dpmpp_2m")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("size_mode", ["resize", "pad"])
def test_floored_frames_come_from_the_model_size_by_one_resampling(
    bundle: ModelBundle, upscale: int, size_mode: str
) -> None:
    """The published way, step by step: floor, upscale, sample, decode, Lanczos to the floored size."""
    task = window_task()
    config = SamplingConfig.from_defaults(bundle.sampling, upscale=upscale, **FAST)
    geometry = FrameGeometry((WIDTH, HEIGHT), 8, "resize", upscale)
    with torch.inference_mode():
        latents = sample_window(
            bundle,
            window_inputs(task.window, geometry, bundle),
            config,
            SeededNoise(0, task.window.spec.index),
            weights=fusion_weights(torch.from_numpy(task.window.spec.times_us)),
        )
        pictures = to_pictures(bundle.decode(latents, config.decode_chunk_size).float() * 127.5 + 127.5)
    expected = np.stack([resize_frame(picture, geometry.fitted_size) for picture in pictures])
    frames = _model("floor8", upscale=upscale, size_mode=size_mode).make(task)
    assert frames.shape == (5, *FLOORED, 3)
    difference = np.abs(frames[1:-1].astype(int) - expected[1:-1].astype(int))
    assert difference.max() <= 1  # the engine equals the step-by-step computation to rounding
    assert (difference > 0).mean() < 1e-3
    assert (frames[0] == geometry.fit(task.window.start_image)).all()


def test_the_refiner_works_at_the_floored_size_and_is_part_of_the_fingerprint(
    bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    refined = replace(bundle, refiner=Refiner((8, 8, 8, 8, 8), (8, 8, 8), 3, 3)).eval()
    monkeypatch.setattr(
        model_system.Interpolator, "from_pretrained", classmethod(lambda cls, *_: Interpolator(refined))
    )
    with_refiner, without = (_model("floor8", refinement=on) for on in (True, False))
    frames, plain = with_refiner.make(window_task()), without.make(window_task())
    assert frames.shape == (5, *FLOORED, 3)
    assert (frames != plain)[1:-1].any()
    before = with_refiner.info.fingerprint
    assert before != without.info.fingerprint
    next(refined.refiner.parameters()).data.view(-1)[0] += 1  # type: ignore[union-attr]
    assert _model("floor8").info.fingerprint != before


@pytest.mark.usefixtures("tiny")
def test_frames_of_another_version_of_pixels_have_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    info = _model().info
    assert info.settings["pixels_version"] == PIXELS_VERSION
    monkeypatch.setattr(model_system, "PIXELS_VERSION", PIXELS_VERSION + 1)
    assert _model().info.fingerprint != info.fingerprint


@pytest.mark.usefixtures("tiny")
def test_windows_do_not_depend_on_their_order() -> None:
    tasks = [window_task(start=start, index=start) for start in (0, 4)]
    forth, back = ([system.make(task) for task in order] for system, order in (
        (_model(), tasks), (_model(), tasks[::-1])))  # fmt: skip
    assert (forth[0] == back[1]).all()
    assert (forth[1] == back[0]).all()


@pytest.mark.usefixtures("tiny")
def test_a_window_without_events_is_blended_and_told(caplog: pytest.LogCaptureFixture) -> None:
    task = window_task(events=0)
    system = _model("floor8")
    assert (system.make(task) == _baseline("linear", "floor8").make(task)).all()
    note = "ours: street, skip 3, window 1 has no events; its key frames are blended"
    assert system.notes == [note]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [note]


@pytest.mark.usefixtures("tiny")
def test_a_models_info_holds_all_that_defines_its_frames() -> None:
    info = _model(fps=9).info
    assert (info.name, info.kind, info.licence) == ("ours", "model", "none")
    assert info.device
    assert {
        "model": "test model",
        "fps": 9,
        "dtype": "float32",
        "size_mode": "pad",
        "num_inference_steps": 1,
    }.items() <= (info.settings.items())
    assert info.settings["event_stack"]
    assert json.loads(json.dumps(info.settings)) == info.settings
    assert info.fingerprint == _model(fps=9).info.fingerprint
    assert info.fingerprint != _model(fps=8).info.fingerprint


@pytest.mark.usefixtures("tiny")
def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^unknown sampling setting stepz; expected one of "):
        _model(stepz=3)
    with pytest.raises(ConfigError, match=r"^unknown sampling setting device; expected one of "):
        _model(device="cpu")
    with pytest.raises(ConfigError, match=r"^sampling setting detail_restoration was removed in version "):
        _model(detail_restoration=False)


def test_the_weights_fingerprint_sees_every_value_but_not_the_layout() -> None:
    network = torch.nn.Conv2d(3, 4, 3)
    first = weights_fingerprint({"a": network})
    network.weight.data = network.weight.data.contiguous(memory_format=torch.channels_last)
    assert weights_fingerprint({"a": network}) == first
    assert weights_fingerprint({"b": network}) != first
    assert weights_fingerprint({"a": network.to(torch.bfloat16)}) != first
    other = torch.nn.Conv2d(3, 4, 3)
    both = {"a": network, "b": other}
    assert weights_fingerprint(both) == weights_fingerprint(dict(reversed(both.items())))
    before = weights_fingerprint({"b": other})
    other.bias.data[-1] += 1  # type: ignore[union-attr]
    assert weights_fingerprint({"b": other}) != before
