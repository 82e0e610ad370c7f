"""The pictures of a report, from the frames kept by an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from evfi.evaluation.generation import kept_frames, scored_truth
from evfi.evaluation.plan import EvaluationPlan, OpenRecordings
from evfi.evaluation.report.pictures import WindowPictures
from evfi.evaluation.results import SystemInfo, WindowRecord
from evfi.events.render import render_events


class KeptPictures:
    """Ground truth, events and every system's frames of a window; a `PictureSource`."""

    def __init__(self, plan: EvaluationPlan, systems: Sequence[SystemInfo]) -> None:
        """Take an evaluation whose frames are made.

        Args:
            plan: the evaluation.
            systems: whose frames.
        """
        self._plan = plan
        self._systems = systems
        self._recordings = OpenRecordings(plan)

    def window(self, record: WindowRecord) -> WindowPictures:
        """The pictures of a window."""
        truth = scored_truth(self._plan, self._recordings, record)
        frames = {system.name: kept_frames(self._plan, system, record, truth) for system in self._systems}
        events = self._recordings[record.sequence].read_events(record.times_us[0], record.times_us[-1])
        return WindowPictures(truth=truth, frames=frames, events=render_events(events) if len(events) else None)

    def close(self) -> None:
        """Close what is open."""
        self._recordings.close()
