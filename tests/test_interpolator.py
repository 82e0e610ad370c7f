from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evfi import interpolator as module
from evfi.engine.devices import resolve_device, resolve_dtype
from evfi.errors import ConfigError, ModelError, RecordingError, ResourceError
from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator, memory_errors_told
from evfi.models.bundle import ModelBundle
from evfi.models.refiner import Refiner
from evfi.recordings.memory import recording_from_memory
from evfi.recordings.recording import Recording
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.presets import PRESETS
from tiny_models import tiny_bundle

WIDTH, HEIGHT = 50, 35
FAST = {"num_inference_steps": 1, "max_guidance_scale": 1.0}


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle()


@pytest.fixture
def interpolator(bundle: ModelBundle) -> Interpolator:
    return Interpolator(bundle, SamplingConfig.from_defaults(bundle.sampling, **FAST))


def _frames(number: int = 3, *, grey: bool = False) -> NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (number, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return np.repeat(frames[..., :1], 3, axis=-1) if grey else frames


def _recording(
    *, grey: bool = False, last_event_us: int = 80_000, sensor: tuple[int, int] = (WIDTH, HEIGHT)
) -> Recording:
    generator = np.random.default_rng(1)
    number = 4000
    events = EventStream.from_arrays(
        generator.integers(0, sensor[0], number),
        generator.integers(0, sensor[1], number),
        generator.integers(0, last_event_us, number),
        generator.choice([-1, 1], number),
        sensor,
    )
    return recording_from_memory(_frames(grey=grey), [0, 40_000, 80_000], events, is_grey=grey)


def test_inserted_frames_stand_between_untouched_key_frames(interpolator: Interpolator) -> None:
    recording = _recording()
    results = list(interpolator.interpolate(recording, insert=2))
    assert [result.spec.index for result in results] == [0, 1]
    for result in results:
        assert result.frames.shape == (4, HEIGHT, WIDTH, 3)
        assert result.frames.dtype == np.uint8
        assert (result.frames[0] == recording.frames.read(result.spec.start_frame)).all()
        assert (result.frames[-1] == recording.frames.read(result.spec.end_frame)).all()
        assert result.seconds > 0


def test_a_window_does_not_depend_on_where_the_run_began(interpolator: Interpolator) -> None:
    whole = list(interpolator.interpolate(_recording(), insert=1, seed=3))
    resumed = list(interpolator.interpolate(_recording(), insert=1, seed=3, start_us=40_000))
    assert [result.spec.index for result in resumed] == [1]
    assert (whole[1].frames == resumed[0].frames).all()


def test_what_is_prepared_in_another_thread_gives_the_same_frames(interpolator: Interpolator) -> None:
    recording = _recording()
    window = recording.load_window(recording.plan_windows(insert=2)[1])
    with ThreadPoolExecutor(1) as pool:
        prepared = pool.submit(interpolator.prepare, window).result()
    made = interpolator.interpolate_window(window, seed=3, prepared=prepared)
    np.testing.assert_array_equal(made, interpolator.interpolate_window(window, seed=3))


@pytest.mark.parametrize(("device", "expected"), [("cpu", 7), ("cuda", 4)])
def test_few_threads_of_the_cpu_work_beside_a_gpu(
    device: str, expected: int, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, before = [], torch.get_num_threads()
    make = module.window_inputs

    def watched(*arguments: Any) -> WindowInputs:
        seen.append(torch.get_num_threads())
        if len(seen) == 3:
            raise RecordingError("cannot be made")
        return make(*arguments)

    monkeypatch.setattr(module, "window_inputs", watched)
    config = SamplingConfig.from_defaults(bundle.sampling, **FAST)
    interpolator = Interpolator(bundle, config, engine="plain", device=torch.device(device))
    recording = _recording()
    window = recording.load_window(recording.plan_windows(1)[0])
    torch.set_num_threads(7)
    try:
        interpolator.prepare(window)
        interpolator.interpolate_window(window)
        with pytest.raises(RecordingError, match="cannot be made"):
            interpolator.prepare(window)
        assert torch.get_num_threads() == 7
    finally:
        torch.set_num_threads(before)
    assert seen == [expected] * 3


def test_the_seed_matters(interpolator: Interpolator) -> None:
    first, second = (next(interpolator.interpolate(_recording(), insert=1, seed=seed)).frames for seed in (0, 1))
    assert (first[1] != second[1]).any()


def test_windows_are_made_when_asked_for_but_settings_are_checked_at_once(interpolator: Interpolator) -> None:
    with pytest.raises(ConfigError, match="must be 1 to"):
        interpolator.interpolate(_recording(), insert=0)


def test_any_output_times(interpolator: Interpolator) -> None:
    times = [1_000, 39_000, 40_000, 70_000]
    results = list(interpolator.interpolate(_recording(), times_us=times))
    assert [result.spec.times_us.tolist() for result in results] == [
        [0, 1_000, 39_000, 40_000],
        [40_000, 70_000, 80_000],
    ]
    assert [len(result.frames) for result in results] == [4, 3]


def test_a_window_without_inserted_frames_costs_nothing(interpolator: Interpolator) -> None:
    (result,) = interpolator.interpolate(_recording(), times_us=[40_000])
    assert (result.frames == _frames()[1:3]).all()


@pytest.mark.parametrize("size_mode", ["pad", "resize"])
@pytest.mark.parametrize("upscale", [1, 2])
def test_sizes_come_back(bundle: ModelBundle, size_mode: str, upscale: int) -> None:
    config = SamplingConfig.from_defaults(bundle.sampling, size_mode=size_mode, upscale=upscale, **FAST)
    (result, *_) = Interpolator(bundle, config).interpolate(_recording(), insert=1)
    assert result.frames.shape == (3, HEIGHT, WIDTH, 3)


def test_a_sensor_of_another_resolution(interpolator: Interpolator) -> None:
    (result, *_) = interpolator.interpolate(_recording(sensor=(25, 17)), insert=1)
    assert result.frames.shape == (3, HEIGHT, WIDTH, 3)


def test_grey_in_grey_out(interpolator: Interpolator) -> None:
    frames = next(interpolator.interpolate(_recording(grey=True), insert=1)).frames
    assert (frames == frames[..., :1]).all()
    coloured = next(interpolator.interpolate(_recording(), insert=1)).frames
    assert (coloured[1] != coloured[1, ..., :1]).any()


def test_a_window_without_events_is_an_error_that_names_it(interpolator: Interpolator) -> None:
    results = interpolator.interpolate(_recording(last_event_us=30_000), insert=1)
    next(results)
    with pytest.raises(RecordingError, match=r"window 1 \(40000 to 80000 µs\) has no events"):
        next(results)


@pytest.fixture(scope="module")
def refined_bundle(bundle: ModelBundle) -> ModelBundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return replace(bundle, refiner=Refiner((8, 8, 8, 8, 8), (8, 8, 8), 3, 3)).eval()


def _made(bundle: ModelBundle, *, seed: int = 0, **settings: Any) -> NDArray[np.uint8]:
    window = _recording().load_window(_recording().plan_windows(3)[0])
    config = SamplingConfig.from_defaults(bundle.sampling, **FAST, **settings)
    return Interpolator(bundle, config).interpolate_window(window, seed=seed)


def test_the_refiner_is_a_setting(bundle: ModelBundle, refined_bundle: ModelBundle) -> None:
    refined, plain = _made(refined_bundle), _made(refined_bundle, refinement=False)
    assert (refined != plain)[1:-1].any()
    np.testing.assert_array_equal(plain, _made(bundle))
    np.testing.assert_array_equal(plain, _made(bundle, refinement=False))
    np.testing.assert_array_equal(refined[[0, -1]], plain[[0, -1]])


def test_without_diffusion_no_noise_matters(refined_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (_made(refined_bundle, seed=0) != _made(refined_bundle, seed=1)).any()
    monkeypatch.setattr("evfi.engine.fast.sample_window", None)
    warped = _made(refined_bundle, seed=0, diffusion=False)
    assert warped.shape == (5, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(warped, _made(refined_bundle, seed=1, diffusion=False))
    np.testing.assert_array_equal(warped[[0, -1]], _frames()[:2])


def test_without_diffusion_a_model_needs_a_refiner(bundle: ModelBundle, interpolator: Interpolator) -> None:
    message = r"^model test model has no refiner, .*--no-diffusion, --preset warp.* such as evfi-tiny$"
    with pytest.raises(ConfigError, match=message):
        Interpolator(bundle, replace(interpolator.config, diffusion=False))
    interpolator.config = replace(interpolator.config, diffusion=False)
    with pytest.raises(ConfigError, match=message):
        next(interpolator.interpolate(_recording(), insert=1))


def test_one_sided_sampling_does_not_look_at_the_end_image(bundle: ModelBundle) -> None:
    window = _recording().load_window(_recording().plan_windows(2)[0])
    other = replace(window, end_image=255 - window.end_image)
    config = SamplingConfig.from_defaults(bundle.sampling, **FAST, two_sided=False)
    one_sided = Interpolator(bundle, config)
    made = one_sided.interpolate_window(window)[1:-1]
    np.testing.assert_array_equal(made, one_sided.interpolate_window(other)[1:-1])
    both = Interpolator(bundle, replace(config, two_sided=True))
    assert (made != both.interpolate_window(window)[1:-1]).any()


def test_progress_is_told(interpolator: Interpolator) -> None:
    told = []
    list(interpolator.interpolate(_recording(), insert=1, on_step=lambda *step: told.append(step)))
    assert told == [(1, 1), (1, 1)]


def test_from_pretrained_takes_the_models_settings_and_the_users(
    monkeypatch: pytest.MonkeyPatch, bundle: ModelBundle
) -> None:
    asked = {}

    def load(name: str, **place: object) -> ModelBundle:
        asked.update(place, name=name)
        return bundle

    monkeypatch.setattr(module, "load_model", load)
    made = Interpolator.from_pretrained("any", device="cpu", fps=9)
    assert asked == {"name": "any", "dtype": torch.float32, "device": torch.device("cpu")}
    assert (made.config.num_inference_steps, made.config.fps) == (3, 9)
    with pytest.raises(ConfigError, match="unknown sampling setting stepz"):
        Interpolator.from_pretrained("any", stepz=3)
    with pytest.raises(ConfigError, match="setting detail_restoration was removed in version"):
        Interpolator.from_pretrained("any", detail_restoration=False)


def test_a_preset_goes_before_the_models_settings_and_after_the_users(
    monkeypatch: pytest.MonkeyPatch, bundle: ModelBundle
) -> None:
    many_steps = replace(bundle, sampling={**bundle.sampling, "num_inference_steps": 40, "s_churn": 0.5})
    monkeypatch.setattr(module, "load_model", lambda *_, **__: many_steps)
    made = Interpolator.from_pretrained("any", device="cpu", preset="fast", solver="dpmpp_2m")
    assert made.config.num_inference_steps == PRESETS["fast"]["num_inference_steps"]
    assert (made.config.s_churn, made.config.solver) == (0.0, "dpmpp_2m")


@pytest.mark.parametrize(
    ("limit", "engine", "first_on", "moved"),
    [
        (7 << 30, None, "cuda", False),  # room for any model
        (4 << 30, None, "cpu", True),  # not for any, but for this one
        (1000, None, "cpu", False),  # it has to go there part by part
        (1000, "plain", "cuda", False),  # an engine that knows no parts
    ],
)
def test_models_that_may_not_fit_are_loaded_into_the_hosts_memory(
    monkeypatch: pytest.MonkeyPatch, limit: int, engine: Any, first_on: str, moved: bool
) -> None:
    bundle, seen = tiny_bundle(), []
    monkeypatch.setattr(module, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(module, "free_budget", lambda device, limit: limit)
    monkeypatch.setattr(module, "load_model", lambda *_, device, **__: seen.append(str(device)) or bundle)
    monkeypatch.setattr(ModelBundle, "to", lambda self, device: seen.append(f"to {device}"))
    monkeypatch.setattr(module, "make_engine", lambda *given: seen.append(given))
    Interpolator.from_pretrained(device="cuda", engine=engine, max_memory=limit)
    *places, made = seen
    assert places == [first_on, *(["to cuda"] if moved else [])]
    assert made == (engine, bundle, limit, torch.device("cuda"))


def test_devices_and_dtypes() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="device must be auto"):
        resolve_device("gpu")
    with pytest.raises(ResourceError, match="no device cuda:99"):
        resolve_device("cuda:99")
    assert resolve_dtype(None, cpu) == torch.float32
    assert resolve_dtype(None, torch.device("cuda")) == torch.float16
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(ConfigError, match="dtype must be one of float32, float16, bfloat16, got int8"):
        resolve_dtype("int8", cpu)
    with pytest.raises(ConfigError, match=r"got torch\.int32"):
        resolve_dtype(torch.int32, cpu)


def test_too_little_memory_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, interpolator: Interpolator
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("evfi.engine.fast.sample_window", fail)
    with pytest.raises(
        ResourceError, match=r"window of 3 frames of 50x35 px on cpu; insert fewer frames or lower upscale"
    ):
        next(interpolator.interpolate(_recording(), insert=1))


def test_only_errors_about_memory_are_told_as_such() -> None:
    with pytest.raises(ResourceError), memory_errors_told("for a test"):
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="size of tensor"), memory_errors_told("for a test"):
        torch.zeros(2) + torch.zeros(3)


def test_an_upscale_that_makes_pictures_too_large_is_refused(
    bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 4 * HEIGHT * WIDTH - 1)
    recording = _recording()
    window = recording.load_window(recording.plan_windows(1)[0])
    interpolator = Interpolator(bundle, SamplingConfig.from_defaults(bundle.sampling, upscale=2, **FAST))
    with pytest.raises(
        ConfigError, match=rf"upscale 2 makes pictures of .* from frames of {WIDTH}x{HEIGHT} px, .*; lower it"
    ):
        interpolator.prepare(window)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_any_cpu(dtype: torch.dtype) -> None:
    """Few processors have oneDNN's fused operations in these types."""
    interpolator = Interpolator.from_pretrained("evfi-tiny", "cpu", dtype, preset="warp")
    exact = Interpolator.from_pretrained("evfi-tiny", "cpu", preset="warp")
    results = [next(kind.interpolate(_recording(), insert=1)).frames[1].astype(int) for kind in (interpolator, exact)]
    assert np.abs(results[0] - results[1]).mean() < 3


@pytest.mark.parametrize("part", ["unet", "refiner"])
def test_a_result_that_is_not_finite_is_an_error(part: str) -> None:
    bundle = replace(tiny_bundle(), refiner=Refiner((8, 8, 8, 8, 8), (8, 8, 8), 3, 3)).eval()
    for weight in getattr(bundle, part).parameters():
        weight.data.fill_(torch.nan)
    settings = SamplingConfig.from_defaults(bundle.sampling, **FAST, diffusion=part == "unet")
    with pytest.raises(ModelError, match="result is not finite: its weights are damaged, or it overflows in float16"):
        next(Interpolator(bundle, settings).interpolate(_recording(), insert=1))
