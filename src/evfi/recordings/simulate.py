"""Make a recording from an ordinary video: some frames become key frames, all are used to simulate events.

    video ──every `keep_every`-th frame──> key frames ──┐
      └────all frames─────────────────────> events ─────┴──> a recording folder in the plain layout

The frames left out are the ground truth of what interpolation puts between the key frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, RecordingError
from evfi.events.simulate import SimulatorConfig
from evfi.events.simulate_video import simulate_video
from evfi.events.stream import EventStream
from evfi.guard import Read, Written, check_places
from evfi.limits import MAX_PIXELS
from evfi.recordings.datasets.plain import write_plain_recording
from evfi.video.geometry import resize_frame
from evfi.video.io import VideoFrames

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulatedRecording:
    """What `simulate_recording` wrote.

    Attributes:
        folder: The recording.
        size: (width, height) of frames and sensor in px.
        num_video_frames: Frames of the video that made events.
        num_key_frames: Frames that were kept.
        num_events: Events written.
    """

    folder: Path
    size: tuple[int, int]
    num_video_frames: int
    num_key_frames: int
    num_events: int


def simulate_recording(
    video_path: str | Path,
    folder: str | Path,
    *,
    keep_every: int = 8,
    height: int | None = None,
    max_frames: int | None = None,
    config: SimulatorConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SimulatedRecording:
    """Simulate an event camera that watched a video, and write key frames and events as a recording.

    Args:
        video_path: A video file.
        folder: Folder to write; see `write_plain_recording` for its layout.
        keep_every: Every so many frames one is kept as a key frame; those after the last key frame are not used.
        height: Scale frames to this height in px, keeping their shape; None keeps the video's size.
        max_frames: Take only so many frames from the video's start; None takes all.
        config: The simulated camera.
        seed: Same seed, same events.
        progress: Called with (frames done, frames in all) while events are made.

    Raises:
        ConfigError: if `keep_every`, `height` or `max_frames` is not positive.
        InputError: if the video cannot be read.
        RecordingError: if it has too few frames for two key frames.
        OutputError: if the folder cannot be written, or holds the video.
    """
    for name, value, least in (("keep_every", keep_every, 1), ("height", height, 8), ("max_frames", max_frames, 2)):
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
    check_places([Written(Path(folder), "the recording", "folder")], [Read(Path(video_path), "the video")])
    with VideoFrames(video_path) as video:
        number = min(len(video), max_frames or len(video))
        last = (number - 1) // keep_every * keep_every
        if last == 0:
            raise RecordingError(
                f"{video_path}: expected at least {keep_every + 1} frames for two key frames {keep_every} apart, found {number}"
            )
        size = _scaled(video.size, height)
        if size[0] * size[1] > MAX_PIXELS:
            raise ConfigError(
                f"height {height} makes frames of {size[0]}×{size[1]}; expected at most {MAX_PIXELS // 2**20} megapixels"
            )
        counter = _Counter(last + 1, progress)
        keys = range(0, last + 1, keep_every)
        all_times = video.times_us[: last + 1]
        streams = simulate_video(counter.frames(video, size), all_times.tolist(), config, seed=seed)
        write_plain_recording(
            Path(folder),
            frames=(resize_frame(video.read(index), size) for index in keys),
            times_us=all_times[::keep_every],
            events=counter.events(streams),
        )
    return SimulatedRecording(Path(folder), size, last + 1, len(keys), counter.num_events)


def _scaled(size: tuple[int, int], height: int | None) -> tuple[int, int]:
    """(width, height) scaled to a height; both even, so that the frames fit any video codec."""
    if height is None:
        return size
    return max(2, round(size[0] * height / size[1] / 2) * 2), height


class _Counter:
    """Counts frames and events as they pass."""

    def __init__(self, num_frames: int, progress: Progress | None) -> None:
        self.num_frames = num_frames
        self.num_events = 0
        self._progress = progress

    def frames(self, video: VideoFrames, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """The video's frames at the wanted size."""
        for index in range(self.num_frames):
            yield resize_frame(video.read(index), size)
            if self._progress is not None:
                self._progress(index + 1, self.num_frames)

    def events(self, streams: Iterator[EventStream]) -> Iterator[EventStream]:
        """The streams, counted."""
        for stream in streams:
            self.num_events += len(stream)
            yield stream
