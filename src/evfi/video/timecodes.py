"""Presentation times of a video's frames as text, in the format that mkvmerge, x264 and FFmpeg's tools take.

"Timecode format v2": a header line, then one time per frame in milliseconds, here with three decimals (1 µs).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evfi.files import written_whole


def write_timecodes(path: str | Path, shown_us: Iterable[int]) -> None:
    """Write presentation times as timecode format v2; the file appears whole or not at all.

    Args:
        path: The file; it is replaced where it exists.
        shown_us: µs from the beginning of the video, one per frame, at least 0.

    Raises:
        OutputError: The file cannot be written.
    """
    with written_whole(Path(path)) as partial, partial.open("w", encoding="ascii", newline="\n") as file:
        file.write(timecodes_text(shown_us))


def timecodes_text(shown_us: Iterable[int]) -> str:
    """What `write_timecodes` writes."""
    lines = (f"{int(time_us) // 1000}.{int(time_us) % 1000:03d}\n" for time_us in shown_us)
    return "".join(["# timecode format v2\n", *lines])
