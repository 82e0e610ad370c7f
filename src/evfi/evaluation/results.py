"""The results of an evaluation: every window and frame, and all that is needed to reproduce them.

`EvaluationResults` is what `results.json` holds, field by field. Nothing in it is averaged: averages are made from it, by
`summary`, so that another average never needs another run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

FORMAT: Final = "evfi-evaluation"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class SequenceInfo:
    """One sequence that was evaluated.

    Attributes:
        name: unique among the sequences of an evaluation.
        path: where it was read from.
        format: the reader, e.g. "aedat4".
        convention: what the reader took the files to mean.
        num_frames: true frames.
        size: (width, height) of the frames as they come, px.
        sensor_size: (width, height) of the event camera, px.
        frame_rate: true frames per second.
        fingerprint: SHA-256 over what was read: frame times, sizes, and the bytes of its files.
        simulated: how its events were simulated; None for a real recording.
        warnings: of the reader.
    """

    name: str
    path: str
    format: str
    convention: str
    num_frames: int
    size: tuple[int, int]
    sensor_size: tuple[int, int]
    frame_rate: float
    fingerprint: str
    simulated: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SystemInfo:
    """Something that makes frames.

    Attributes:
        name: unique, as it stands in tables, e.g. "evfi-tiny", "linear".
        kind: "model", "baseline" or "frames" (a folder that another program wrote).
        settings: all that defines its output.
        fingerprint: of weights and settings.
        device: what it ran on; "" where that is not known.
        licence: of its weights; "" where it has none.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    fingerprint: str
    device: str = ""
    licence: str = ""


@dataclass(frozen=True)
class MetricInfo:
    """A metric as it was computed; see `metrics.base.Metric`."""

    name: str
    title: str
    definition: str
    higher_is_better: bool
    unit: str = ""
    decimals: int = 3
    version: int = 1
    needs_truth: bool = True


@dataclass(frozen=True)
class WindowRecord:
    """One window that the protocol looked at.

    Attributes:
        sequence: whose.
        skip: true frames left out between its key frames.
        index: number of the window among those of this sequence and skip, dropped ones counted.
        start_frame: its first key frame, counted from the sequence's first frame.
        end_frame: its last key frame.
        times_us: of all its frames, key frames included.
        dropped: why the protocol leaves it out; None if it is scored.
    """

    sequence: str
    skip: int
    index: int
    start_frame: int
    end_frame: int
    times_us: tuple[int, ...]
    dropped: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """(sequence, skip, index): what identifies it."""
        return self.sequence, self.skip, self.index


@dataclass(frozen=True)
class Timing:
    """How long a system took for a window's inserted frames, in seconds, reading and writing apart.

    Attributes:
        is_warm: False for the first window that a process made, which pays for what is set up once.
    """

    sequence: str
    skip: int
    index: int
    system: str
    seconds: float
    is_warm: bool = True


@dataclass(frozen=True)
class Score:
    """The values of one metric for the inserted frames of one window.

    Attributes:
        sequence: with `skip` and `index`: which window.
        skip: see there.
        index: see there.
        system: who made the frames.
        truth: "raw" or "vae": what they were compared with.
        metric: by name.
        region: "all" or the name of a smaller region.
        values: one per inserted frame, in the order of time; None where it is not defined.
    """

    sequence: str
    skip: int
    index: int
    system: str
    truth: str
    metric: str
    region: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class EvaluationResults:
    """All of it.

    Attributes:
        created: date and time, ISO 8601, UTC.
        evfi_version: of this package.
        command: what was asked for, as typed or as given to the library.
        settings: the evaluation's whole configuration.
        protocol: the protocol, whole.
        environment: versions of Python and libraries, operating system, processor, cores, GPU.
        sequences: in the order of evaluation.
        systems: likewise.
        metrics: likewise.
        windows: all, dropped ones too.
        timings: where known.
        scores: every value.
        missing: metrics that were asked for and could not be computed, with the reason.
        notes: what else was left out, one line each.
    """

    created: str
    evfi_version: str
    command: str
    settings: dict[str, Any]
    protocol: dict[str, Any]
    environment: dict[str, Any]
    sequences: tuple[SequenceInfo, ...]
    systems: tuple[SystemInfo, ...]
    metrics: tuple[MetricInfo, ...]
    windows: tuple[WindowRecord, ...]
    timings: tuple[Timing, ...] = ()
    scores: tuple[Score, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
