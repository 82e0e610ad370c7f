"""Sequences to evaluate: recordings, datasets of them, and ordinary videos through the event simulator.

Every frame of a sequence is a true frame; a protocol leaves some of them out. A video becomes a recording in the folder
of the evaluation once, and is found there again.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from evfi.errors import ConfigError, InputError, OutputError
from evfi.evaluation.results import SequenceInfo
from evfi.events.simulate import SIMULATOR_VERSION, SimulatorConfig
from evfi.files import make_room, one_line, read_mark, written_whole
from evfi.fingerprints import fingerprint_of, fingerprint_of_files
from evfi.paths import check_name, is_file
from evfi.recordings.datasets import plain
from evfi.recordings.files import FileWatch, recording_fingerprint
from evfi.recordings.opening import looks_like_recording, open_recording, recordings_within
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.recordings.simulate import simulate_recording

_log = logging.getLogger(__name__)

MAX_SEQUENCES: Final = 10_000
_MAX_SEARCHED_FOLDERS: Final = 20_000
_RECORDING_SUFFIXES: Final = (".aedat", ".aedat4", ".bag", ".db3", ".mcap", ".h5", ".hdf5")
_SIMULATION_FILE: Final = "simulation.json"
_MAX_MARK_BYTES: Final = 2**16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VideoOptions:
    """How a video is turned into a sequence.

    Attributes:
        height: scale videos to this height in px; by default they are not scaled.
        max_frames: use only this many frames from the start of a video.
    """

    height: int | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        for name, smallest in (("height", 8), ("max_frames", 3)):
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigError(f"{name} of a video must be at least {smallest}, got {value}")


@dataclass(frozen=True)
class EvaluatedSequence:
    """One sequence, ready to be opened by any process.

    Attributes:
        info: who it is.
        location: the recording to open.
        opening: input options.
        files: digest of the recording's files, see `FileWatch.digest`, before they were read.
    """

    info: SequenceInfo
    location: Path
    opening: RecordingOptions
    files: str

    def open(self) -> Recording:
        """Open the recording that holds the true frames and the events.

        Raises:
            EvfiError: as `open_recording`.
        """
        return open_recording(self.location, self.opening)

    def watch(self, recording: Recording) -> FileWatch:
        """Watch the files of the opened recording, which must be as they were when the evaluation was planned.

        Raises:
            InputError: they are not.
        """
        watch = _watch(recording)
        if watch.digest != self.files:
            raise InputError(f"{self.location} {watch.advice()}")
        return watch


def find_sequences(paths: Sequence[Path], opening: RecordingOptions | None = None) -> dict[str, Path]:
    """Find what there is to evaluate, and give each a name.

    Args:
        paths: recordings, videos, or folders that hold such (looked through three levels deep).
        opening: input options; if they name an event file, each path is one recording.

    Returns:
        Path by name; names are unique and can be folder names.

    Raises:
        InputError: a path does not exist, or a folder holds neither.
    """
    found: dict[str, Path] = {}
    for path in paths:
        check_name(path)
        if not path.exists():
            raise InputError(f"no such file or folder: {path}")
        for name, place in _sequences_of(path, opening or RecordingOptions()).items():
            found[_unused(name, found)] = place
    return found


def _sequences_of(path: Path, opening: RecordingOptions) -> dict[str, Path]:
    if opening.events is not None or opening.format is not None or path.is_file():
        return {_folder_name(path.stem): path}
    if looks_like_recording(path):
        return {_folder_name(path.name or path.resolve().name): path}
    below = recordings_within(path, MAX_SEQUENCES, _MAX_SEARCHED_FOLDERS, files=True)
    if not below:
        return {_folder_name(path.name or path.resolve().name): path}  # opening it says what is wrong
    _tell_passed_over(path, below)
    stems = Counter(place.stem for place in below)
    return {
        _folder_name(place.stem if stems[place.stem] == 1 else "_".join(place.relative_to(path).parts)): place
        for place in below
    }


def _tell_passed_over(folder: Path, found: Sequence[Path]) -> None:
    """Name the files in a folder that look like recordings and are none that can be read."""
    for file in sorted(set(folder.iterdir()) - set(found)):
        if file.suffix.lower() in _RECORDING_SUFFIXES and is_file(file):
            _log.warning("skipping %s: it contains no readable recording; open it alone to see why", file)


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name).strip(".") or "sequence"


def _unused(name: str, taken: dict[str, Path]) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def prepare_sequence(
    name: str,
    path: Path,
    folder: Path,
    *,
    opening: RecordingOptions | None = None,
    video: VideoOptions | None = None,
    simulator: SimulatorConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EvaluatedSequence:
    """Look at a recording, or make one of a video.

    Args:
        name: the sequence's name.
        path: a recording or a video.
        folder: where simulated recordings are kept, one folder each.
        opening: what a recording's files leave open.
        video: how videos become sequences.
        simulator: the simulated event camera.
        seed: of the simulation.
        progress: called with (frames done, frames in all) while events are simulated.

    Raises:
        EvfiError: as `open_recording` and `simulate_recording`.
    """
    opening = opening or RecordingOptions()
    simulation: dict[str, Any] | None = None
    location = path
    if plain.is_video(path) and opening.events is None:
        location = folder / name
        simulation = _simulated(path, location, video or VideoOptions(), simulator or SimulatorConfig(), seed, progress)
        opening = RecordingOptions()
    with open_recording(location, opening) as recording:
        files = _watch(recording).digest
        times = recording.frames.times_us
        info = SequenceInfo(
            name=name,
            path=str(path),
            format=recording.format,
            convention=recording.convention,
            num_frames=len(times),
            size=recording.frames.size,
            sensor_size=recording.events.sensor_size,
            frame_rate=round((len(times) - 1) * 1e6 / float(times[-1] - times[0]), 3),
            fingerprint=_fingerprint(recording, path, opening, simulation),
            simulated=simulation,
            warnings=recording.warnings,
        )
    return EvaluatedSequence(info, location, opening, files)


def _watch(recording: Recording) -> FileWatch:
    otherwise = "or without it, to evaluate the recording as it is now"
    return FileWatch(recording.places, pictures=recording.frames.paths, otherwise=otherwise)


def _fingerprint(recording: Recording, path: Path, opening: RecordingOptions, simulation: dict[str, Any] | None) -> str:
    """Of the recording, and of how it was simulated where its files are a video's."""
    places = [path] if simulation is not None else None
    return fingerprint_of([recording_fingerprint(recording, opening, places=places), simulation])


def _is_note(raw: Any, wanted: dict[str, Any]) -> bool:
    return isinstance(raw, dict) and raw.keys() == wanted.keys()


def _simulated(
    video: Path, folder: Path, options: VideoOptions, simulator: SimulatorConfig, seed: int, progress: Progress | None
) -> dict[str, Any]:
    """Make the recording unless it is there already; return how it was made."""
    wanted = {
        "video": fingerprint_of_files([video]),
        "height": options.height,
        "max_frames": options.max_frames,
        "simulator": asdict(simulator),
        "simulator_version": SIMULATOR_VERSION,
        "seed": seed,
    }
    mark = folder.with_name(f"{folder.name}.{_SIMULATION_FILE}")
    if folder.is_dir():
        if read_mark(mark, _MAX_MARK_BYTES) == wanted:
            return wanted
        raise ConfigError(
            f"{folder} contains events simulated from another video, with other settings or by another version; choose "
            "another output folder"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder.parent}: {one_line(error)}; choose another") from error
    make_room(mark, lambda file: _is_note(read_mark(file, _MAX_MARK_BYTES), wanted))
    with written_whole(mark) as partial:
        partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    simulate_recording(
        video,
        folder,
        keep_every=1,
        height=options.height,
        max_frames=options.max_frames,
        config=simulator,
        seed=seed,
        progress=progress,
    )
    return wanted
