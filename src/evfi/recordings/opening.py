"""`open_recording`: finds the reader that a path's content calls for."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from evfi.errors import ConfigError, EvfiError, InputError, RecordingError
from evfi.events.filters import FilteredEvents
from evfi.events.formats import check_is_stored, claims_to
from evfi.guard import check_cache
from evfi.paths import check_name, is_file
from evfi.recordings.alignment import read_homography, shifted_mapping
from evfi.recordings.datasets import (
    aedat4,
    bsergb,
    clear_motion,
    dsec,
    ecd,
    erf_x170,
    evdi,
    event_utils,
    eventaid,
    hq_evfi,
    hsergb,
    mvsec,
    plain,
    refid,
    rosbag,
    timelens,
    vid2e,
)
from evfi.recordings.estimation import estimate_alignment
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.recordings.retiming import retimed

_log = logging.getLogger(__name__)

_MAX_SEARCH_DEPTH: Final = 3
_MAX_SEARCHED_FOLDERS: Final = 200
_MAX_SEARCHED_ENTRIES: Final = 1000
_MAX_NAMED_RECORDINGS: Final = 2


@dataclass(frozen=True)
class RecordingFormat:
    """One layout of recordings.

    Attributes:
        name: what `format` calls it.
        description: what such a recording looks like.
        recognises: whether an existing path is one, told from its content.
        open: opens it, given what the user said about it.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, RecordingOptions], Recording]


RECORDING_FORMATS: Final = tuple(
    RecordingFormat(reader.NAME, reader.DESCRIPTION, reader.recognises, reader.open_recording)
    for reader in (
        aedat4,
        bsergb,
        clear_motion,
        dsec,
        ecd,
        erf_x170,
        evdi,
        event_utils,
        eventaid,
        hq_evfi,
        hsergb,
        mvsec,
        plain,
        refid,
        rosbag,
        timelens,
        vid2e,
    )
)


def open_recording(
    path: str | os.PathLike[str],
    options: RecordingOptions | None = None,
    *,
    must_overlap: bool = True,
    **settings: Any,
) -> Recording:
    """Open a recording: key frames and events of one scene.

    Args:
        path: a file or folder of any layout in `RECORDING_FORMATS`; or frames alone (a folder of pictures, a video) if
            `events` is given.
        options: what the files leave open, see `RecordingOptions`.
        must_overlap: refuse frames and events that do not overlap in time; otherwise the recording can only be looked at.
        settings: fields of `RecordingOptions`, instead of `options` or on top of it.

    Raises:
        InputError: the path is missing, of an unknown or ambiguous layout, damaged or truncated.
        RecordingError: it holds fewer than two frames or no events, or the two do not overlap in time.
        ConfigError: a setting is unknown, out of range, or contradicts another.
    """
    chosen = _with_settings(options or RecordingOptions(), settings)
    try:
        recording = _open(Path(path), chosen)
        try:
            aligned = _align(recording, chosen)
            return aligned.checked_overlap() if must_overlap else aligned
        except BaseException:
            recording.close()
            raise
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def _with_settings(options: RecordingOptions, settings: dict[str, Any]) -> RecordingOptions:
    known = [field.name for field in fields(RecordingOptions)]
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(f"unknown recording option {', '.join(unknown)}; expected one of {', '.join(known)}")
    for name in ("events", "timestamps", "sensor_to_frame"):
        if settings.get(name) is not None:
            settings[name] = Path(settings[name])
    return replace(options, **settings)


def _open(path: Path, options: RecordingOptions) -> Recording:
    others = (place for place in (options.events, options.timestamps, options.sensor_to_frame) if place is not None)
    named = (path, *others)
    for place in named:
        check_name(place)
    check_cache(named)
    recording = _read(path, options)
    recording.places = tuple(dict.fromkeys((*named, *recording.places)))
    return recording


def _read(path: Path, options: RecordingOptions) -> Recording:
    known = {layout.name: layout for layout in RECORDING_FORMATS}
    if options.format is not None and options.format not in known:
        raise ConfigError(f"unknown recording format '{options.format}'; expected one of {', '.join(known)}")
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    check_is_stored(path)
    is_bag_asked = options.format in (None, rosbag.NAME) and options.timestamps is None
    if options.events is not None and is_bag_asked and rosbag.recognises(path):
        return rosbag.open_recording(path, options)  # frames of a bag, events from elsewhere
    if options.events is not None or options.timestamps is not None:
        if options.format not in (None, plain.NAME):
            raise ConfigError(f"format '{options.format}' finds its files itself; leave out events and timestamps")
        return plain.open_recording(path, options)
    return (known[options.format] if options.format is not None else _recognised(path)).open(path, options)


def _align(recording: Recording, options: RecordingOptions) -> Recording:
    """Filter events, and put what the user said about times and places in the place of what the reader took."""
    if options.remove_hot_pixels or options.background_filter_us is not None:
        events = FilteredEvents(recording.events, options.remove_hot_pixels, options.background_filter_us)
        recording = replace(recording, events=events)
    if options.sensor_to_frame is not None:
        recording = replace(recording, sensor_to_frame=read_homography(options.sensor_to_frame))
    frames = retimed(recording.path, recording.frames, options.frame_time, options.time_offset_us)
    recording = replace(recording, frames=frames)
    if options.estimate_offset or options.estimate_shift:
        recording = _align_as_estimated(recording, offset=options.estimate_offset, shift=options.estimate_shift)
    return recording


def _align_as_estimated(recording: Recording, *, offset: bool, shift: bool) -> Recording:
    found = estimate_alignment(recording, offset=offset, shift=shift)
    what = " and ".join(name for name, wanted in (("time offset", offset), ("shift", shift)) if wanted)
    if not found.is_reliable:
        raise RecordingError(
            f"{recording.path}: the {what} cannot be estimated: {found.note}; turn the estimate off, or give "
            f"{'a time offset' if offset else 'a homography'} yourself"
        )
    _log.info("%s: estimated %s", recording.path, found.describe(offset=offset, shift=shift))
    return replace(
        recording,
        frames=retimed(recording.path, recording.frames, None, found.time_offset_us),
        sensor_to_frame=shifted_mapping(recording.sensor_to_frame, found.shift_px),
    )


def _recognised(path: Path) -> RecordingFormat:
    claims = [layout for layout in RECORDING_FORMATS if layout.recognises(path)]
    if len(claims) > 1:
        names = ", or ".join(f"{layout.name} ({layout.description})" for layout in claims)
        raise InputError(f"{path}: could be {names}; say which with --format {claims[0].name}")
    if not claims:
        raise InputError(f"{path}: {_describe_unknown(path)}")
    return claims[0]


def _describe_unknown(path: Path) -> str:
    if path.is_file():
        if path.stat().st_size == 0:
            return "the file is empty; copy or record it again"
        if plain.is_video(path):
            return "a video without events; pass an event file as well, or generate events with `evfi simulate`"
    elif not any(path.iterdir()):
        return "the folder is empty"
    elif found := recordings_within(path):
        return f"a folder of recordings, not a recording; choose one of them, e.g. {' or '.join(map(str, found))}"
    for event_format in claims_to(path):
        return f"an event file ({event_format.name}) without frames; give pictures or a video, and this as --events"
    known = ", ".join(layout.name for layout in RECORDING_FORMATS)
    advice = f"; for your own pictures and events, create {plain.DESCRIPTION}" if path.is_dir() else ""
    return (
        f"unknown format; expected one of {known} (docs/formats.md, docs/datasets.md), or pictures and --events{advice}"
    )


def recordings_within(
    path: Path, most: int = _MAX_NAMED_RECORDINGS, most_folders: int = _MAX_SEARCHED_FOLDERS, *, files: bool = False
) -> list[Path]:
    """Recordings below a folder, at most three levels down, in the order of their depth and names.

    Args:
        path: the folder; it is not looked at itself.
        most: stop when so many are found.
        most_folders: stop when so many folders were looked at.
        files: whether files count too, ordinary videos among them.
    """
    found: list[Path] = []
    waiting = deque([(path, 0)])
    for _ in range(most_folders):
        if not waiting or len(found) >= most:
            break
        folder, depth = waiting.popleft()
        if depth and looks_like_recording(folder):
            found.append(folder)
        elif depth < _MAX_SEARCH_DEPTH:
            with suppress(OSError), os.scandir(folder) as entries:
                some = sorted(islice(entries, _MAX_SEARCHED_ENTRIES), key=lambda entry: entry.name)
                below = [Path(entry.path) for entry in some if files and is_file(entry)]
                found += [file for file in below if looks_like_recording(file) or plain.is_video(file)]
                waiting.extend((Path(entry.path), depth + 1) for entry in some if entry.is_dir(follow_symlinks=False))
    return found


def looks_like_recording(path: Path) -> bool:
    """Whether a reader takes a file or folder for its own, told from its content without opening it."""
    return any(_claims_quietly(layout, path) for layout in RECORDING_FORMATS)


def _claims_quietly(layout: RecordingFormat, folder: Path) -> bool:
    try:
        return layout.recognises(folder)
    except (OSError, EvfiError):
        return False
