"""Show the progress and the summary of a job, for people and for batch systems."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from evfi.cli.progress import ProgressReport, TimeLeft
from evfi.cli.terminal import print_json, print_lines

if TYPE_CHECKING:
    from evfi.pipeline.job import JobSummary
    from evfi.pipeline.job_loop import JobState

ProgressMode = Literal["auto", "json", "quiet"]

_JSON_INTERVAL_S: Final = 1.0


class JobProgress(Protocol):
    """Hears how far a job is, and in the end what it came to."""

    def __call__(self, state: JobState) -> None:
        """How far it is; called from several threads, one at a time."""

    def done(self, summary: JobSummary) -> None:
        """What it came to."""


@contextmanager
def job_progress(mode: ProgressMode) -> Iterator[JobProgress]:
    """Progress in one of its forms.

    Args:
        mode: "auto" (a bar or lines on stderr, the summary on stdout), "json" (lines on stdout) or "quiet".
    """
    if mode == "auto":
        with ProgressReport("windows") as report:
            yield _ForPeople(report)
    elif mode == "json":
        yield _JsonLines()
    else:
        yield _Quiet()


class _ForPeople:
    def __init__(self, report: ProgressReport) -> None:
        self._report = report

    def __call__(self, state: JobState) -> None:
        note = f"{state.num_frames_done} of {state.num_frames} frames"
        if len(state.devices) > 1:
            shares = (f"{device.split()[0]} {number}" for device, number in sorted(state.devices.items()))
            note += f" ({', '.join(shares)})"
        self._report(state.num_done + min(state.part, state.num_windows - state.num_done), state.num_windows, note)

    def done(self, summary: JobSummary) -> None:
        print_lines(*describe(summary))


class _JsonLines:
    def __init__(self) -> None:
        self._began, self._last, self._last_done = time.monotonic(), -_JSON_INTERVAL_S, -1
        self._time_left = TimeLeft()

    def __call__(self, state: JobState) -> None:
        now, left = time.monotonic(), self._time_left(state.num_done + state.part, state.num_windows)
        if now - self._last < _JSON_INTERVAL_S and state.num_done == self._last_done:
            return
        self._last, self._last_done = now, state.num_done
        _say(
            "progress",
            windows=state.num_windows,
            windows_done=state.num_done,
            windows_kept=state.num_kept,
            frames=state.num_frames,
            frames_done=state.num_frames_done,
            seconds=round(now - self._began, 1),
            seconds_left=None if left is None else round(left, 1),
            devices=state.devices,
        )

    def done(self, summary: JobSummary) -> None:
        results = {name: str(place) for name, place in _places(summary)}
        _say(
            "done",
            windows=summary.num_windows,
            windows_kept=summary.num_kept,
            frames=summary.num_frames,
            frames_made=summary.num_inserted,
            findings=summary.findings,
            fps=summary.playback.fps,
            slowdown=summary.playback.slowdown,
            constant_rate=summary.is_constant,
            dropped_events=summary.num_dropped_events,
            seconds=round(summary.seconds, 3),
            work_seconds=round(summary.work_s, 3),
            results=results,
            job=str(summary.folder),
        )


class _Quiet:
    def __call__(self, state: JobState) -> None:
        pass

    def done(self, summary: JobSummary) -> None:
        pass


def _say(event: str, **facts: Any) -> None:
    print_json({"event": event, **facts})


def _places(summary: JobSummary) -> Iterator[tuple[str, Any]]:
    if summary.num_frames == 0:
        return
    targets = summary.targets
    named = {
        "video": targets.video,
        "pictures": targets.frames_dir,
        "compare": targets.comparison,
        "times": targets.timecodes_file,
        "report": targets.report if targets.report.exists() else None,
    }
    yield from ((name, place) for name, place in named.items() if place is not None)


def describe(summary: JobSummary) -> list[str]:
    """A job's summary for people, line by line."""
    playback, (num_keys, num_shown) = summary.playback, summary.num_key_frames
    windows = f"{summary.num_windows}"
    if summary.num_kept:
        windows += f", {summary.num_kept} of them already done"
    lines = [f"windows   {windows}"]
    lines += [f"          {number} {_FINDINGS.get(kind, kind)}" for kind, number in sorted(summary.findings.items())]
    if summary.num_frames:
        frames = f"frames    {summary.num_frames}, {summary.num_inserted} of them new"
        lines.append(frames + (f"; {num_shown} of {num_keys} key frames" if num_shown < num_keys else ""))
    lines.append(f"time      {summary.seconds:.1f} s, {summary.seconds_per_frame:.2f} s of work per new frame")
    if summary.num_frames:
        rate = "" if summary.is_constant else ", variable frame rate"
        lines.append(f"playback  {playback.fps:.4g} fps, {playback.speed}{rate}")
    if summary.num_dropped_events:
        lines.append(
            f"events    {summary.num_dropped_events} left out: outside the frame or their interval, or filtered"
        )
    lines += [f"{name:10}{place}" for name, place in _places(summary)]
    if summary.folder.exists():
        lines.append(
            f"job       {summary.folder} ({summary.num_bytes / 1e6:.3g} MB; remove it once you are satisfied with the result)"
        )
    return lines


_FINDINGS: Final = {
    "gap": "with a gap",
    "cut": "with a scene cut",
    "exposure": "with a jump in exposure",
    "no-events": "without events although the key frames differ",
    "few-events": "with few events and no visible motion: blended",
}
