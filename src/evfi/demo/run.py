"""The demo as a whole: film the scene, interpolate, compare, write.

FOLDER/demo.mp4     key frames, events, and the interpolated video, in slow motion side by side
FOLDER/demo.png     one inserted frame: key frame, events, ours, blending, ground truth
FOLDER/recording/   the recording itself, for `evfi interpolate`
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi.demo.comparison import Progress, Scores, compare
from evfi.demo.pictures import draw_sheet, draw_video
from evfi.demo.recording import DemoConfig, DemoRecording, film_scene
from evfi.errors import OutputError
from evfi.files import check_writable, one_line
from evfi.pipeline.work import WindowInterpolator
from evfi.recordings.datasets.plain_writer import FORMAT_MARK, write_plain_recording
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
        folder: Where results go; made if missing, results of an earlier demo are replaced.
        interpolator: Makes the frames of a window.
        name: What pictures call it.
        config: The recording.
        progress: Called with (windows done, windows in all).

    Raises:
        OutputError: The folder cannot be written.
    """
    config = config or DemoConfig()
    folder = Path(folder)
    prepare_folder(folder)
    film = film_scene(config)
    began = time.perf_counter()
    comparison = compare(film, interpolator, config.insert, config.seed, progress)
    seconds = time.perf_counter() - began
    _write_recording(folder / "recording", film, config)
    write_png(folder / "demo.png", draw_sheet(comparison, name))
    frames = draw_video(comparison, name)
    with VideoWriter(folder / "demo.mp4", frame_size(frames[0]), _VIDEO_FPS) as writer:
        for frame in frames * _VIDEO_LOOPS:
            writer.write(frame)
    return DemoSummary(
        video=folder / "demo.mp4",
        picture=folder / "demo.png",
        recording=folder / "recording",
        num_inserted=config.windows * config.insert,
        seconds=seconds,
        ours=comparison.scores(comparison.ours),
        blending=comparison.scores(comparison.blended),
    )


def prepare_folder(folder: Path) -> None:
    """Make the demo's folder, and make sure before the work that results can be written into it.

    Raises:
        OutputError: They cannot.
    """
    if not folder.is_dir():
        check_writable(folder)
        try:
            folder.mkdir()
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {one_line(error)}; choose another") from error
    check_writable(folder / "demo.mp4")
    recording = folder / "recording"
    if recording.exists() and not _is_plain_recording(recording):
        raise OutputError(f"cannot write {recording}: it exists and is no recording; choose another folder")


def _is_plain_recording(folder: Path) -> bool:
    try:
        declared = json.loads((folder / "recording.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(declared, dict) and declared.get("format") == FORMAT_MARK["format"]


def _write_recording(folder: Path, film: DemoRecording, config: DemoConfig) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    stride = config.insert + 1
    write_plain_recording(folder, film.truth[::stride], film.times_us[::stride], film.events)
