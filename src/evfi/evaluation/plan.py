"""Plan an evaluation: which windows of which sequences under which protocol."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, RecordingError
from evfi.evaluation.protocol import Protocol
from evfi.evaluation.results import WindowRecord
from evfi.evaluation.selection import select_windows, spread
from evfi.evaluation.sequences import EvaluatedSequence
from evfi.recordings.files import FileWatch
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording


@dataclass(frozen=True)
class EvaluationPlan:
    """Everything that is decided before the first frame is made.

    Attributes:
        folder: where results go.
        protocol: the rules.
        sequences: what is evaluated.
        windows: all windows, dropped ones too, in the order of sequences, skips and time.
        seed: of all random numbers.
        notes: what was left out, one line each.
    """

    folder: Path
    protocol: Protocol
    sequences: tuple[EvaluatedSequence, ...]
    windows: tuple[WindowRecord, ...]
    seed: int
    notes: tuple[str, ...] = ()

    @cached_property
    def scored(self) -> tuple[WindowRecord, ...]:
        """Windows that the protocol does not drop."""
        return tuple(record for record in self.windows if record.dropped is None)

    def sequence(self, name: str) -> EvaluatedSequence:
        """A sequence by name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, EvaluatedSequence]:
        return {sequence.info.name: sequence for sequence in self.sequences}


def plan_windows(
    sequences: Sequence[EvaluatedSequence], protocol: Protocol, skips: Sequence[int], limit: int | None
) -> tuple[list[WindowRecord], list[str]]:
    """Select the windows of all sequences and skips.

    Args:
        sequences: what is evaluated.
        protocol: the rules.
        skips: frames left out between two key frames, one evaluation each.
        limit: most windows per sequence and skip, spread evenly over those that are not dropped; None takes all.

    Returns:
        The windows, and one line for each sequence and skip that has none.

    Raises:
        RecordingError: no sequence has any window.
        InputError: a recording is damaged.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the number of windows must be at least 1, got {limit}")
    records: list[WindowRecord] = []
    notes: list[str] = []
    for sequence in sequences:
        with sequence.open() as recording:
            for skip in skips:
                try:
                    selected = select_windows(recording, protocol, skip)
                except RecordingError as error:
                    notes.append(f"{sequence.info.name}, skip {skip}: {error}")
                    continue
                kept = [window for window in selected if window.dropped is None]
                chosen = {window.spec.index for window in (kept if limit is None else spread(kept, limit))}
                records += [
                    _record(sequence, skip, window.spec, window.dropped)
                    for window in selected
                    if window.dropped is not None or window.spec.index in chosen
                ]
    if not any(record.dropped is None for record in records):
        dropped = next((f"{record.sequence}: {record.dropped}" for record in records if record.dropped), "")
        raise RecordingError(f"no window is left to evaluate; {(notes or [dropped])[0]}")
    return records, notes


def _record(sequence: EvaluatedSequence, skip: int, spec: WindowSpec, dropped: str | None) -> WindowRecord:
    return WindowRecord(
        sequence=sequence.info.name,
        skip=skip,
        index=spec.index,
        start_frame=spec.start_frame,
        end_frame=spec.end_frame,
        times_us=tuple(int(time) for time in spec.times_us),
        dropped=dropped,
    )


def spec_of(record: WindowRecord) -> WindowSpec:
    """The window in the words of recordings."""
    return WindowSpec(record.index, record.start_frame, record.end_frame, np.array(record.times_us, np.int64))


def true_frames(recording: Recording, record: WindowRecord) -> NDArray[np.uint8]:
    """A window's true frames at their original size, key frames included, uint8 [F, H, W, 3]."""
    return np.stack([recording.frames.read(number) for number in range(record.start_frame, record.end_frame + 1)])


class OpenRecordings:
    """Recordings of a plan, opened when first asked for; the last one stays open."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self._plan = plan
        self._open: tuple[str, Recording, FileWatch] | None = None

    def __getitem__(self, name: str) -> Recording:
        """The recording of a sequence."""
        if self._open is None or self._open[0] != name:
            self.close()
            sequence = self._plan.sequence(name)
            recording = sequence.open()
            self._open = name, recording, sequence.watch(recording)
        return self._open[1]

    def check(self, record: WindowRecord) -> None:
        """Make sure that what a window was read from has not changed, before what was made from it is kept.

        Raises:
            InputError: it has changed.
        """
        if self._open is not None and self._open[0] == record.sequence:
            self._open[2].check(range(record.start_frame, record.end_frame + 1))

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            with suppress(OSError):
                self._open[1].close()
            self._open = None
