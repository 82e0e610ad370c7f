"""The published protocol from end to end, against numbers made step by step from its definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import evfi
from evfi.evaluation.results import EvaluationResults
from evfi.evaluation.run import EvaluationConfig, EvaluationInputs, evaluate
from evfi.evaluation.systems import SystemRequest
from evfi.recordings.planning import WindowSpec
from file_writers.datasets import SIZE, known_recording, write_bsergb

NUM_FRAMES, SKIP, CHUNK = 13, 1, 2
ONE_SIDED, UPSCALE = 3, 2
MODEL = SystemRequest("ours", "model", "evfi-tiny", {"upscale": UPSCALE, "decode_chunk_size": CHUNK})
CONFIG = EvaluationConfig("vdm-evfi", (SKIP,), metrics=("psnr_rgb",))


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint8]]:
    """A sequence in BS-ERGB's layout, whose interval `ONE_SIDED` has positive events only; and its frames."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (NUM_FRAMES, 6, 8, 3), dtype=np.uint8)
    frames = np.stack(
        [np.asarray(Image.fromarray(picture).resize(SIZE, Image.Resampling.BICUBIC)) for picture in coarse]
    )
    known = replace(known_recording(NUM_FRAMES), frames=frames)
    known.p[known.interval(ONE_SIDED)] = 1
    return write_bsergb(tmp_path_factory.mktemp("data") / "sequence", known), frames


@pytest.fixture(scope="module")
def results(sequence: tuple[Path, NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> EvaluationResults:
    return evaluate(EvaluationInputs((sequence[0],), (MODEL,), devices="cpu"), tmp_path_factory.mktemp("out"), CONFIG)


def resized(picture: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize(size, how))


def psnr(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.square(picture.astype(float) - truth).mean()))


def test_windows_are_those_of_the_definition(results: EvaluationResults):
    num_frames = SKIP + 2
    starts = range(0, max(1, NUM_FRAMES - 1 - (num_frames + 3)), SKIP + 1)
    assert [window.start_frame for window in results.windows] == list(starts)
    dropped = [start for start in starts if start <= ONE_SIDED < start + SKIP + 1]
    assert dropped
    assert [window.start_frame for window in results.windows if window.dropped] == dropped


def test_values_are_those_of_the_definition(results: EvaluationResults, sequence: tuple[Path, NDArray[np.uint8]]):
    path, frames = sequence
    index, start = 2, 4
    floored = (SIZE[0] // 8 * 8, SIZE[1] // 8 * 8)
    assert floored != SIZE
    small = np.stack([resized(frame, floored, Image.Resampling.LANCZOS) for frame in frames[start : start + SKIP + 2]])

    model = evfi.Interpolator.from_pretrained(
        "evfi-tiny", "cpu", upscale=UPSCALE, decode_chunk_size=CHUNK, size_mode="resize", refinement=False
    )
    with evfi.open_recording(path) as recording:
        times = recording.frames.times_us[start : start + SKIP + 2]
        window = recording.load_window(WindowSpec(index, start, start + SKIP + 1, times))
    made = model.interpolate_window(replace(window, start_image=small[0], end_image=small[-1]), seed=0)

    large = [resized(f, (floored[0] * UPSCALE, floored[1] * UPSCALE), Image.Resampling.BICUBIC) for f in small]
    vae = model.bundle.vae
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = torch.cat([vae.decode(vae.encode(pixel[None]).latents).sample for pixel in pixels])
    levels = (decoded * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    passed = [resized(picture, floored, Image.Resampling.LANCZOS) for picture in levels]

    for truth, expected in (("raw", small), ("vae", passed)):
        (score,) = (
            score
            for score in results.scores
            if (score.index, score.truth, score.metric, score.region) == (index, truth, "psnr_rgb", "all")
        )
        assert score.values == pytest.approx([psnr(made[1], expected[1])], abs=1e-3)
