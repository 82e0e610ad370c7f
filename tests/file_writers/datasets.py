"""Small faithful copies of published datasets' layouts, all written from one known recording.

Every `write_<layout>(folder, recording)` makes one sequence below `folder` and returns the path that a user would open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (48, 36)
NUM_PER_INTERVAL = 600


@dataclass(frozen=True)
class KnownRecording:
    """What every copy holds.

    Attributes:
        frames: uint8 [N, H, W, 3], each of one grey or colour.
        times_us: time of each frame in µs [N].
        x: columns in whole pixels.
        y: rows in whole pixels.
        t: times in µs, in order, all between the first and the last frame.
        p: polarities 0/1.
    """

    frames: NDArray[np.uint8]
    times_us: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    t: NDArray[np.int64]
    p: NDArray[np.int64]

    def interval(self, index: int) -> NDArray[np.bool_]:
        """Which events lie between frame `index` and the next."""
        return (self.t >= self.times_us[index]) & (self.t < self.times_us[index + 1])


def known_recording(num_frames: int = 5, start_us: int = 1_000_000, seed: int = 0) -> KnownRecording:
    """A recording of flat frames, 10 ms apart, and random events."""
    rng = np.random.default_rng(seed)
    times = start_us + 10_000 * np.arange(num_frames)
    count = NUM_PER_INTERVAL * (num_frames - 1)
    frames = np.zeros((num_frames, SIZE[1], SIZE[0], 3), np.uint8)
    frames[:] = (20 + 30 * np.arange(num_frames))[:, None, None, None]
    frames[..., 0] += 5
    return KnownRecording(
        frames,
        times,
        rng.integers(0, SIZE[0], count),
        rng.integers(0, SIZE[1], count),
        np.sort(rng.integers(times[0], times[-1], count)),
        rng.integers(0, 2, count),
    )


def steps_of(values: NDArray[np.int64], steps: int, seed: int = 1) -> NDArray[np.int64]:
    """Coordinates in 1/`steps` px that a reader rounds back to `values`."""
    jitter = np.random.default_rng(seed).integers(-steps // 2 + 1, steps // 2, len(values))
    return np.maximum(values * steps + jitter, 0)


def fractions_of(values: NDArray[np.int64], seed: int = 1) -> NDArray[np.float32]:
    """Coordinates with fractions of a pixel that a reader rounds back to `values`."""
    return (values + np.random.default_rng(seed).uniform(-0.45, 0.45, len(values))).astype(np.float32)


def write_pictures(folder: Path, recording: KnownRecording, name: str = "{:06d}.png") -> None:
    """One picture per frame, named by its number (and time)."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(recording.frames):
        Image.fromarray(frame).save(folder / name.format(number, recording.times_us[number]))


def write_stamps(path: Path, values: object) -> None:
    """One value per line."""
    path.write_text("".join(f"{value}\n" for value in np.asarray(values)))


def write_bsergb(folder: Path, recording: KnownRecording) -> Path:
    """BS-ERGB: 1/32 px, file n from frame n on."""
    write_pictures(folder / "images", recording)
    write_stamps(folder / "images/timestamp.txt", recording.times_us)
    return _write_long_names(folder, recording, 32)


def write_clear_motion(folder: Path, recording: KnownRecording) -> Path:
    """Clear-Motion: whole pixels, file n from frame n on."""
    write_pictures(folder / "images", recording)
    write_stamps(folder / "images/timestamp.txt", recording.times_us)
    return _write_long_names(folder, recording, 1)


def _write_long_names(folder: Path, recording: KnownRecording, steps: int) -> Path:
    (folder / "events").mkdir()
    for index in range(len(recording.frames) - 1):
        part = recording.interval(index)
        x, y = (steps_of(v, steps) if steps > 1 else v for v in (recording.x[part], recording.y[part]))
        np.savez(
            folder / f"events/{index:06d}.npz",
            x=x.astype(np.uint16),
            y=y.astype(np.uint16),
            timestamp=recording.t[part].astype(np.uint32),
            polarity=recording.p[part].astype(np.uint8),
        )
    return folder


def write_hsergb(folder: Path, recording: KnownRecording, *, num_spare_images: int = 2) -> Path:
    """HS-ERGB: fractions of pixels, file n up to frame n, images beyond the last time."""
    sequence = folder / "close/test/candle"
    write_pictures(sequence / "images_corrected", recording)
    for spare in range(num_spare_images):
        Image.fromarray(recording.frames[0]).save(
            sequence / f"images_corrected/{len(recording.frames) + spare:06d}.png"
        )
    write_stamps(sequence / "images_corrected/timestamp.txt", recording.times_us.astype(np.float64))
    return _write_fractions(sequence, "events_aligned", recording)


def write_timelens(folder: Path, recording: KnownRecording) -> Path:
    """Time Lens' example: fractions of pixels, file n up to frame n, times beyond the last image."""
    write_pictures(folder / "images", recording)
    step = recording.times_us[1] - recording.times_us[0]
    write_stamps(
        folder / "images/timestamp.txt", [*recording.times_us, *(recording.times_us[-1] + step * np.arange(1, 4))]
    )
    return _write_fractions(folder, "events", recording)


def _write_fractions(folder: Path, name: str, recording: KnownRecording) -> Path:
    (folder / name).mkdir()
    for index in range(len(recording.frames) - 1):
        part = recording.interval(index)
        np.savez(
            folder / name / f"{index + 1:06d}.npz",
            x=fractions_of(recording.x[part]),
            y=fractions_of(recording.y[part]),
            t=recording.t[part].astype(np.uint32),
            p=recording.p[part].astype(np.uint8),
        )
    return folder


def write_erf_x170(folder: Path, recording: KnownRecording) -> Path:
    """ERF-X170FPS: 128 steps per pixel, file n from frame n on, no frame times."""
    write_pictures(folder / "processed_images", recording, "{:05d}.png")
    (folder / "processed_events").mkdir()
    for index in range(len(recording.frames) - 1):
        part = recording.interval(index)
        np.savez(
            folder / f"processed_events/{index:05d}.npz",
            x=steps_of(recording.x[part], 128).astype(np.uint32),
            y=steps_of(recording.y[part], 128).astype(np.uint32),
            t=recording.t[part],
            p=recording.p[part].astype(np.uint8),
        )
    return folder


def write_hq_evfi(folder: Path, recording: KnownRecording, *, with_spans: bool = True) -> Path:
    """HQ-EVFI: numbers and ns in the names, file n up to frame n; one file more lies before the first frame."""
    write_pictures(folder / "visual_RGB", recording, "{:d}_{:d}000.png")
    (folder / "RGB-EVS").mkdir()
    for index in range(-1, len(recording.frames) - 1):
        part = recording.interval(max(index, 0))
        start, end = recording.times_us[max(index, 0)], recording.times_us[max(index, 0) + 1]
        t = recording.t[part] - (end - start if index < 0 else 0)
        columns = {"x": recording.x[part].astype(np.float32), "y": recording.y[part].astype(np.float32)}
        columns |= {"t": t * (1 if with_spans else 1000), "p": (2 * recording.p[part] - 1).astype(np.int8)}
        if with_spans:
            columns |= {"start_t": np.array(start), "end_t": np.array(end), "sync_rgb": np.zeros((2, 2), np.uint8)}
        np.savez(folder / f"RGB-EVS/{index + 1:d}_{recording.times_us[index + 1]:d}000.npz", **columns)
    return folder


def write_eventaid(folder: Path, recording: KnownRecording, header: str = "index timestamp_us exposure_us") -> Path:
    """EventAid-F: text files, times in a table."""
    write_pictures(folder / "input", recording, "{:06d}_img.jpg")
    (folder / "event").mkdir()
    for index in range(len(recording.frames) - 1):
        part = recording.interval(index)
        columns = np.stack([recording.t[part], recording.x[part], recording.y[part], recording.p[part]], axis=1)
        np.savetxt(folder / f"event/{index:06d}.txt", columns, fmt="%d")
    rows = [f"{number} {time} 3000" for number, time in enumerate(recording.times_us)]
    (folder / "frame_info.txt").write_text("\n".join([header, *rows]) + "\n")
    (folder / "event_info.txt").write_text("file num_events\n")
    (folder / "shape.txt").write_text(f"{SIZE[0]} {SIZE[1]}\n")
    return folder


def write_refid_gopro(folder: Path, recording: KnownRecording) -> Path:
    """REFID's GoPro: events in a tree beside the frames, seconds."""
    video = folder / "train/GOPR0372_07_00"
    write_pictures(video / "gt", recording)
    _write_refid(folder / "train_event/GOPR0372_07_00", recording, (recording.x, recording.y), recording.t / 1e6)
    return video


def write_refid_highrev(folder: Path, recording: KnownRecording) -> Path:
    """HighREV: events beside the frames, x and y swapped."""
    video = folder / "val/Building"
    write_pictures(video / "gt", recording, "{:05d}.png")
    _write_refid(video / "event", recording, (recording.y, recording.x), recording.t)
    return video


def _write_refid(
    folder: Path, recording: KnownRecording, places: tuple[NDArray[np.int64], ...], times: NDArray[np.generic]
) -> None:
    folder.mkdir(parents=True)
    for index in range(len(recording.frames) - 1):
        part = recording.interval(index)
        x, y = (values[part].astype(np.int16) for values in places)
        np.savez(folder / f"{index:06d}.npz", x=x, y=y, timestamp=times[part], polarity=recording.p[part])


def write_evdi(folder: Path, recording: KnownRecording, *, per_us: int = 1) -> Path:
    """EVDI: one text file, start and end of the exposures; a unit of 1/`per_us` µs."""
    write_pictures(folder / "Blur", recording)
    write_stamps(folder / "Exposure_start.txt", (recording.times_us - 1000) * per_us)
    write_stamps(folder / "Exposure_end.txt", (recording.times_us + 1000) * per_us)
    columns = np.stack([recording.t * per_us, recording.x, recording.y, 2 * recording.p - 1], axis=1)
    np.savetxt(folder / "Events.txt", columns, fmt="%d")
    return folder


def write_ecd(folder: Path, recording: KnownRecording) -> Path:
    """ECD: text files in seconds."""
    write_pictures(folder / "images", recording, "frame_{:08d}.png")
    lines = [f"{time / 1e6:.9f} images/frame_{number:08d}.png\n" for number, time in enumerate(recording.times_us)]
    (folder / "images.txt").write_text("".join(lines))
    columns = np.stack([recording.t / 1e6, recording.x, recording.y, recording.p], axis=1)
    np.savetxt(folder / "events.txt", columns, fmt=("%.9f", "%d", "%d", "%d"))
    return folder


def write_vid2e(folder: Path, recording: KnownRecording) -> Path:
    """vid2e: ns, frame times in seconds, no events for the first frame."""
    write_pictures(folder / "imgs", recording, "{:08d}.png")
    write_stamps(folder / "timestamps.txt", recording.times_us / 1e6)
    for index in range(len(recording.frames) - 1):
        part = recording.interval(index)
        np.savez(
            folder / f"{index:010d}.npz",
            x=recording.x[part].astype(np.int16),
            y=recording.y[part].astype(np.int16),
            t=recording.t[part] * 1000 + 400,
            p=(2 * recording.p[part] - 1).astype(np.int16),
        )
    return folder


LAYOUTS: dict[str, tuple[str, Callable[[Path, KnownRecording], Path]]] = {
    "bs-ergb": ("bs-ergb", write_bsergb),
    "clear-motion": ("clear-motion", write_clear_motion),
    "hs-ergb": ("hs-ergb", write_hsergb),
    "timelens": ("timelens", write_timelens),
    "erf-x170fps": ("erf-x170fps", write_erf_x170),
    "hq-evfi": ("hq-evfi", write_hq_evfi),
    "eventaid": ("eventaid", write_eventaid),
    "refid-gopro": ("refid", write_refid_gopro),
    "refid-highrev": ("refid", write_refid_highrev),
    "evdi": ("evdi", write_evdi),
    "ecd": ("ecd", write_ecd),
    "vid2e": ("vid2e", write_vid2e),
}
"""Per layout: the reader that must claim it, and its writer."""
