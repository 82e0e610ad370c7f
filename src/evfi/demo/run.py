"""Run the demo: record the scene, interpolate, compare, write.

FOLDER/demo.mp4     key frames, events, and the interpolated video, in slow motion side by side
FOLDER/demo.png     one inserted frame: key frame, events, ours, blending, ground truth
FOLDER/recording/   the recording itself, for `evfi interpolate`
FOLDER/demo.json    which files these are, see `evfi.demo.folder`
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi.demo.comparison import Progress, Scores, compare
from evfi.demo.folder import PICTURE, RECORDING, VIDEO, prepare_folder, replace_results
from evfi.demo.pictures import draw_sheet, draw_video
from evfi.demo.recording import DemoConfig, DemoRecording, record_scene
from evfi.errors import OutputError
from evfi.files import one_line, remove_leftovers, temporary_beside
from evfi.pipeline.models import WindowInterpolator
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.video.geometry import frame_size
from evfi.video.io import write_png
from evfi.video.writer import VideoWriter

_VIDEO_FPS: Final = 10.0
_VIDEO_LOOPS: Final = 3


@dataclass(frozen=True)
class DemoSummary:
    """What the demo made.

    Attributes:
        video: demo.mp4.
        picture: demo.png.
        recording: the recording's folder.
        num_inserted: frames that were made.
        seconds: time of interpolation alone.
        ours: scores of the interpolated frames.
        blending: scores of linear blending.
    """

    video: Path
    picture: Path
    recording: Path
    num_inserted: int
    seconds: float
    ours: Scores
    blending: Scores


def run_demo(
    folder: str | Path,
    interpolator: WindowInterpolator,
    *,
    name: str = "evfi",
    config: DemoConfig | None = None,
    progress: Progress | None = None,
) -> DemoSummary:
    """Run the demo.

    Args:
        folder: Where results go; made if missing, results of an earlier demo are replaced if nobody changed them.
        interpolator: Makes the frames of a window.
        name: What pictures call it.
        config: The recording.
        progress: Called with (windows done, windows in all).

    Raises:
        OutputError: The folder cannot be written, or something that no demo wrote is in a result's place.
    """
    config = config or DemoConfig()
    folder = Path(folder)
    earlier = prepare_folder(folder)
    demo = record_scene(config)
    began = time.perf_counter()
    comparison = compare(demo, interpolator, config.insert, config.seed, progress)
    seconds = time.perf_counter() - began
    frames = draw_video(comparison, name)
    with _folder_for_results(folder) as made:
        _write_recording(made / RECORDING, demo, config)
        write_png(made / PICTURE, draw_sheet(comparison, name))
        with VideoWriter(made / VIDEO, frame_size(frames[0]), _VIDEO_FPS) as writer:
            for frame in frames * _VIDEO_LOOPS:
                writer.write(frame)
        replace_results(folder, made, earlier)
    return DemoSummary(
        video=folder / VIDEO,
        picture=folder / PICTURE,
        recording=folder / RECORDING,
        num_inserted=config.windows * config.insert,
        seconds=seconds,
        ours=comparison.scores(comparison.ours),
        blending=comparison.scores(comparison.blended),
    )


@contextmanager
def _folder_for_results(folder: Path) -> Iterator[Path]:
    """A private folder on the same disk; what an earlier run left of one is removed."""
    try:
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder, RECORDING.__eq__)
        with temporary_beside(folder / RECORDING) as made:
            made.mkdir()
            yield made
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {one_line(error)}") from error


def _write_recording(folder: Path, demo: DemoRecording, config: DemoConfig) -> None:
    stride = config.insert + 1
    write_plain_recording(folder, demo.truth[::stride], demo.times_us[::stride], demo.events)
