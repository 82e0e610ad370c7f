"""What is in a recording, and what is wrong with it: `inspect_recording`.

All events are read once, in bounded memory; a few frames are looked at; time offset and shift are estimated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import EvfiError, InputError
from evfi.recordings.estimation import estimate_alignment
from evfi.recordings.event_statistics import EventStatistics, count_events
from evfi.recordings.inspection_advice import advise
from evfi.recordings.inspection_events import event_facts
from evfi.recordings.inspection_facts import AlignmentFacts, FrameFacts, Inspection, OverlapFacts
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import FrameSource, Recording
from evfi.recordings.subject import Subject, open_subject

_MAX_LISTED: Final = 16
_NUM_PROBES: Final = 9
_MISSING_FROM: Final = 1.6  # an interval of so many usual ones hides a missing frame
_OUT_OF_LINE: Final = 0.25
_DARK_LEVEL, _BRIGHT_LEVEL = 2, 253
_FEW_EVENTS: Final = 0.01  # of what an interval usually has


def inspect_recording(path: str | os.PathLike[str], options: RecordingOptions | None = None) -> Inspection:
    """Look at a recording, or at an event file without frames.

    Args:
        path: a file or folder of any layout or event format.
        options: what the files leave open.

    Raises:
        InputError: neither frames nor events can be read.
        RecordingError: there are no events.
        ConfigError: a setting is out of range or contradicts another.
    """
    with open_subject(Path(path), options or RecordingOptions()) as subject:
        return inspect_subject(subject)


def inspect_subject(subject: Subject) -> Inspection:
    """Look at what is already open.

    Raises:
        InputError: there are no frames, and not even the first events can be read.
    """
    recording, before = subject.recording, subject.events.report.warnings()
    statistics = count_events(subject.events, recording.frames.times_us if recording else None)
    if statistics.error is not None and statistics.num_events == 0 and recording is None:
        raise InputError(statistics.error)
    report = subject.events.report  # of some formats complete only now
    alignment, no_alignment = _alignment_facts(recording) if recording else (None, None)
    said = [line for line in (recording.warnings if recording else ()) if line not in before]
    inspection = Inspection(
        path=str(subject.path),
        format=recording.format if recording else report.format,
        convention=(recording.convention if recording else "") or report.convention,
        frames=_frame_facts(recording.frames) if recording else None,
        no_frames=subject.problem,
        events=event_facts(subject, statistics),
        overlap=_overlap_facts(recording, statistics) if recording else None,
        alignment=alignment,
        no_alignment=no_alignment,
        warnings=tuple(dict.fromkeys((*subject.notes, *said, *report.warnings()))),
    )
    return advise(inspection, subject.options)


def _frame_facts(frames: FrameSource) -> FrameFacts:
    times = frames.times_us
    intervals = np.diff(times)
    median = float(np.median(intervals))
    ratios = intervals / median
    out_of_line = np.flatnonzero(np.abs(ratios - 1) > _OUT_OF_LINE)
    exposures = frames.exposures_us
    lengths = None if exposures is None else exposures[:, 1] - exposures[:, 0]
    probed = _Probes(frames)
    return FrameFacts(
        num_frames=len(frames),
        width_px=frames.size[0],
        height_px=frames.size[1],
        is_grey=probed.is_grey,
        first_us=int(times[0]),
        last_us=int(times[-1]),
        duration_us=int(times[-1] - times[0]),
        rate_fps=1e6 / median,
        interval_median_us=median,
        interval_min_us=int(intervals.min()),
        interval_max_us=int(intervals.max()),
        interval_std_us=float(intervals.std()),
        num_missing=int((np.rint(ratios[ratios > _MISSING_FROM]) - 1).sum()),
        num_out_of_line=len(out_of_line),
        out_of_line=tuple(out_of_line[:_MAX_LISTED].tolist()),
        exposure_known=lengths is not None,
        exposure_median_us=None if lengths is None else float(np.median(lengths)),
        exposure_min_us=None if lengths is None else int(lengths.min()),
        exposure_max_us=None if lengths is None else int(lengths.max()),
        num_probed=probed.num_read,
        mean_level=probed.mean(probed.sum_levels),
        share_dark=probed.mean(probed.num_dark),
        share_bright=probed.mean(probed.num_bright),
        error=probed.error,
    )


class _Probes:
    """A few frames spread over the recording, looked at; a frame that cannot be read ends that."""

    def __init__(self, frames: FrameSource):
        self.num_read = self.num_values = self.sum_levels = self.num_dark = self.num_bright = 0
        self.is_grey: bool | None = None
        self.error: str | None = None
        try:
            self.is_grey = frames.is_grey
            for index in sorted({round(i) for i in np.linspace(0, len(frames) - 1, _NUM_PROBES)}):
                image = frames.read(index)
                self.num_read += 1
                self.num_values += image.size
                self.sum_levels += int(image.sum(dtype=np.int64))
                self.num_dark += int(np.count_nonzero(image <= _DARK_LEVEL))
                self.num_bright += int(np.count_nonzero(image >= _BRIGHT_LEVEL))
        except (EvfiError, OSError) as error:
            self.error = " ".join(str(error).split())

    def mean(self, total: int) -> float | None:
        """Per value."""
        return total / self.num_values if self.num_values else None


def _overlap_facts(recording: Recording, statistics: EventStatistics) -> OverlapFacts:
    per_interval = np.diff(statistics.until_marks)
    few = (per_interval > 0) & (per_interval < _FEW_EVENTS * np.median(per_interval))
    return OverlapFacts(
        num_intervals=len(per_interval),
        num_with_events=int(np.count_nonzero(per_interval)),
        num_with_few=int(np.count_nonzero(few)),
        share_of_events=float(per_interval.sum()) / max(statistics.num_events, 1),
        share_at_frame_times=float(statistics.at_marks.sum()) / max(statistics.num_events, 1),
    )


def _alignment_facts(recording: Recording) -> tuple[AlignmentFacts | None, str | None]:
    """The estimate, or why there is none."""
    try:
        estimate = estimate_alignment(recording)
    except (EvfiError, OSError) as error:
        return None, " ".join(str(error).split())
    facts = AlignmentFacts(
        time_offset_us=int(estimate.time_offset_us),
        time_offset_error_us=float(estimate.time_offset_error_us),
        shift_px=(float(estimate.shift_px[0]), float(estimate.shift_px[1])),
        shift_error_px=(float(estimate.shift_error_px[0]), float(estimate.shift_error_px[1])),
        correlation=float(estimate.correlation),
        confidence=float(estimate.confidence),
        is_reliable=bool(estimate.is_reliable),
        note=estimate.note,
        curve_offsets_us=tuple(estimate.curve_offsets_us.tolist()),
        curve_correlations=tuple(estimate.curve_correlations.tolist()),
    )
    return facts, None
