"""The picture of an inspection: a few moments of the recording, and plots below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from evfi.errors import EvfiError
from evfi.events.render import NEGATIVE_COLOUR, POSITIVE_COLOUR, render_events
from evfi.events.stream import EventStream
from evfi.files import written_whole
from evfi.recordings.inspection_facts import Inspection
from evfi.recordings.inspection_plots import (
    FAINT_INK,
    INK,
    PAPER,
    WINDOW_INK,
    draw_offsets,
    draw_rate,
    text_size,
    time_unit,
)
from evfi.recordings.recording import Recording
from evfi.recordings.subject import Subject

_WIDTH: Final = 1560
_MARGIN: Final = 20
_GAP: Final = 14
_HEADER: Final = 92
_CAPTION: Final = 28
_PLOT_HEIGHT: Final = 300
_OFFSETS_WIDTH: Final = 500
_NUM_WINDOWS: Final = 6
_SHARE_OF_PIXELS: Final = 0.12  # so many events per pixel are shown: more would hide the frame
_SLICE_US: Final = 40_000
_MIN_SLICE_US: Final = 100
_MAX_TALLNESS: Final = 3  # what is taller for its width is drawn compressed
_DARK_BELOW: Final = 60  # mean level of frames that are made brighter
_WANTED_LEVEL: Final = 100.0
_MAX_GAIN: Final = 4.0


@dataclass(frozen=True, eq=False)
class _Moment:
    """A frame and the events that follow it; or events alone."""

    image: NDArray[np.uint8] | None
    events: EventStream
    start_us: int
    end_us: int
    frame: int | None


def write_picture(path: Path, subject: Subject, inspection: Inspection) -> None:
    """Draw an inspection and write it, whole or not at all.

    Args:
        path: the PNG file.
        subject: what was inspected, still open.
        inspection: what was found.

    Raises:
        OutputError: it cannot be written.
    """
    picture = draw_picture(subject, inspection)
    with written_whole(path) as partial:
        picture.save(partial, format="PNG")


def draw_picture(subject: Subject, inspection: Inspection) -> Image.Image:
    """Frames with the events that follow them, and the rate of events over time; without frames, events alone."""
    moments = _moments(subject, inspection)
    panels = [_panel(moment, subject) for moment in moments]
    columns = _num_columns(subject)
    rows = -(-len(panels) // columns)
    panel_height = panels[0].height + _CAPTION + _GAP if panels else 0
    sheet = Image.new("RGB", (_WIDTH, _HEADER + rows * panel_height + _PLOT_HEIGHT + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    _head(draw, subject.path, inspection)
    span_us = _span(inspection)
    for number, (moment, panel) in enumerate(zip(moments, panels, strict=True)):
        left = _MARGIN + number % columns * (panel.width + _GAP)
        top = _HEADER + number // columns * panel_height
        _caption(draw, (left, top), f"{number + 1}", moment, span_us)
        sheet.paste(panel, (left, top + _CAPTION))
    _plots(sheet, _HEADER + rows * panel_height, subject, inspection, moments)
    return sheet


def _head(draw: ImageDraw.ImageDraw, path: Path, inspection: Inspection) -> None:
    events, frames = inspection.events, inspection.frames
    parts = [f"{events.num_events:,} events in {events.duration_us / 1e6:.4g} s, {events.width_px}x{events.height_px}"]
    if frames is not None:
        parts.insert(
            0, f"{frames.num_frames:,} frames, {frames.width_px}x{frames.height_px}, {frames.rate_fps:.4g} fps"
        )
    draw.text((_MARGIN, 16), path.name.encode("utf-8", "replace").decode(), INK, text_size(27))
    if _gain(inspection) > 1:
        parts.append("dark frames are shown brighter")
    draw.text((_MARGIN, 54), "   ·   ".join([*parts, inspection.format]), FAINT_INK, text_size(17))
    right = _WIDTH - _MARGIN
    for colour, text in ((NEGATIVE_COLOUR, "darker"), (POSITIVE_COLOUR, "brighter")):
        width = draw.textlength(text, text_size(16))
        draw.text((right - width, 55), text, FAINT_INK, text_size(16))
        draw.rectangle((right - width - 20, 59, right - width - 8, 71), fill=colour)
        right -= round(width) + 42


def _caption(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], number: str, moment: _Moment, span_us: tuple[int, int]
) -> None:
    left, top = place
    frame = "" if moment.frame is None else f"frame {moment.frame}, "
    factor, unit = time_unit(span_us[1] - span_us[0])
    at = f"{(moment.start_us - span_us[0]) / factor:.2f} {unit}"
    text = f"{frame}{at}: {len(moment.events):,} events in {(moment.end_us - moment.start_us) / 1e3:.3g} ms"
    draw.text((left + 1, top + 4), number, WINDOW_INK, text_size(17))
    draw.text((left + 20, top + 5), text, INK, text_size(15))


def _plots(sheet: Image.Image, top: int, subject: Subject, inspection: Inspection, moments: list[_Moment]) -> None:
    alignment, width = inspection.alignment, _WIDTH
    if alignment is not None and len(alignment.curve_offsets_us) > 1:
        width -= _OFFSETS_WIDTH
        sheet.paste(draw_offsets((_OFFSETS_WIDTH, _PLOT_HEIGHT), alignment), (width, top))
    frame_times = subject.recording.frames.times_us if subject.recording else None
    windows = [(moment.start_us, moment.end_us) for moment in moments]
    events = inspection.events
    span_us = _span(inspection)
    size = (width, _PLOT_HEIGHT)
    rate = draw_rate(size, events.rate_over_time, span_us, events.last_us, frame_times, windows, events.gaps)
    sheet.paste(rate, (0, top))


def _span(inspection: Inspection) -> tuple[int, int]:
    """First and last time of frames and events."""
    events, frames = inspection.events, inspection.frames
    if frames is None:
        return events.first_us, max(events.last_us, events.first_us + 1)
    return min(events.first_us, frames.first_us), max(events.last_us, frames.last_us)


def _num_columns(subject: Subject) -> int:
    width, height = subject.recording.frames.size if subject.recording else subject.events.sensor_size
    return 3 if width > height else _NUM_WINDOWS


def _panel(moment: _Moment, subject: Subject) -> Image.Image:
    """A moment's picture, as wide as a column; single pixels stay sharp."""
    columns = _num_columns(subject)
    panel_width = (_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    width, height = subject.recording.frames.size if subject.recording else moment.events.sensor_size
    panel_height = min(max(1, round(panel_width * height / width)), _MAX_TALLNESS * panel_width)
    size = (panel_width, panel_height)
    if width >= panel_width or panel_height == _MAX_TALLNESS * panel_width:
        over = None if moment.image is None else _resized(moment.image, size)
        return Image.fromarray(render_events(moment.events, size=size, over=over, saturation=2))
    factor = -(-panel_width // width)
    drawn = render_events(moment.events, size=(width, height), over=moment.image, saturation=2)
    enlarged = Image.fromarray(drawn).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    return enlarged.resize(size, Image.Resampling.BOX)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _moments(subject: Subject, inspection: Inspection) -> list[_Moment]:
    """A few, spread over the recording; where reading fails, those before."""
    moments: list[_Moment] = []
    try:
        if subject.recording is not None:
            last = len(subject.recording.frames) - 2
            for index in sorted({round(place) for place in np.linspace(0, last, _NUM_WINDOWS)}):
                moments.append(_moment_of_frame(subject.recording, index, inspection))
        else:
            first, length = inspection.events.first_us, inspection.events.duration_us + 1
            slice_us = _slice_length(inspection, min(_SLICE_US, max(length // (2 * _NUM_WINDOWS), 1)))
            for number in range(_NUM_WINDOWS):
                start = first + (length - slice_us) * number // (_NUM_WINDOWS - 1)
                events = subject.events.slice(start, start + slice_us)
                moments.append(_Moment(None, events, start, start + slice_us, None))
    except (EvfiError, OSError):
        pass  # told among the inspection's warnings
    return moments


def _moment_of_frame(recording: Recording, index: int, inspection: Inspection) -> _Moment:
    start, end = (int(time) for time in recording.frames.times_us[index : index + 2])
    end = min(end, start + _slice_length(inspection, end - start))
    image: NDArray[np.uint8] | None
    try:
        image = np.minimum(recording.frames.read(index) * _gain(inspection), 255).astype(np.uint8)
    except (EvfiError, OSError):
        image = None
    return _Moment(image, recording.read_events(start, end), start, end, index)


def _gain(inspection: Inspection) -> float:
    """By how much frames are made brighter, so that something can be seen of dark ones."""
    level = inspection.frames.mean_level if inspection.frames is not None else None
    if level is None or level >= _DARK_BELOW:
        return 1.0
    return min(_WANTED_LEVEL / max(level, 1.0), _MAX_GAIN)


def _slice_length(inspection: Inspection, longest_us: int) -> int:
    """How long a slice may be for its events not to hide everything, at the mean rate."""
    events = inspection.events
    wanted = _SHARE_OF_PIXELS * events.width_px * events.height_px / max(events.mean_rate_per_s, 1e-9) * 1e6
    return int(min(longest_us, max(wanted, _MIN_SLICE_US)))
