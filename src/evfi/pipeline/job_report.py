"""The report of a job: an HTML file next to the video that shows how it was made and where to look for errors.

Facts come in, a page goes out; nothing is measured here. It needs neither network nor other files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi import __version__
from evfi.files import written_whole
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.job_report_plots import rate_figure, seconds_figure
from evfi.pipeline.job_report_video import key_frames_section, slice_section, thumbnails_section
from evfi.pipeline.job_report_windows import finding_titles, findings_table, windows_table
from evfi.pipeline.video_statistics import VideoFacts
from evfi.report.document import Section, page
from evfi.report.markup import Html, counted, element, joined, number
from evfi.report.parts import facts_list, table

_READING: Final = (
    ("Key frame", "A recorded picture. It appears in the video as it was recorded."),
    ("Window", "The time between two neighbouring key frames, with the events between them. Each is processed separately."),
    ("Interpolated frame", "A frame between two key frames, made by the model from both of them and the events in between."),
    (
        "Held or blended",
        "Frames that were not made by the model: the window's first key frame repeated, or its two key frames mixed. "
        "They show no motion of their own; the window's finding gives the reason.",
    ),
    (
        "Events left out",
        "Events outside the picture or outside their window's time, and those that a filter removed as noise.",
    ),
    (
        "Finding",
        "Something unusual about a window that may be visible in the video. It is not proof of an error: look at the "
        "video there.",
    ),
    ("Work", "Seconds that a device spent on a window. Several devices work at the same time, so the sum can exceed the "
             "elapsed time."),
)  # fmt: skip


@dataclass(frozen=True)
class JobReport:
    """The contents of a report.

    Attributes:
        title: the heading, e.g. the recording's name.
        created: when the video was finished.
        settings: values by name, by group, e.g. {"Sampling": {"steps": 25}}.
        outputs: what was written: names and paths.
        windows: all windows, in the order of time.
        video: what was gathered of the video; None if none was gathered.
        seconds: time that went by in this run.
        seconds_before: time that earlier runs spent on windows that were kept.
        playback: frame rate and slowdown, in one line.
        warnings: for people, one line each.
        devices: windows done in this run and seconds busy, by device.
    """

    title: str
    created: str
    settings: Mapping[str, Mapping[str, object]]
    outputs: Mapping[str, str]
    windows: Sequence[WindowFacts]
    video: VideoFacts | None
    seconds: float
    seconds_before: float
    playback: str
    warnings: Sequence[str]
    devices: Mapping[str, tuple[int, float]]


def write_job_report(path: Path, report: JobReport) -> None:
    """Write the report of a job.

    Args:
        path: the .html file; it appears whole or not at all.
        report: the report's content.

    Raises:
        OutputError: the disk refuses.
    """
    text = _render(report)
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def _render(report: JobReport) -> str:
    video = report.video if report.video is not None and report.video.num_frames else None
    origin_us = _origin_us(report)
    sections = [
        Section("figures", "At a glance", _figures_section(report)),
        Section("warnings", "What is unusual", _warnings_section(report)),
    ]
    if video is not None:
        sections += [
            Section("video", "The video in pictures", thumbnails_section(video, origin_us)),
            Section("slice", "A slice through time", slice_section(video, origin_us)),
        ]
    if report.windows:
        sections.append(Section("time", "Over the recording's time", _plots_section(report.windows)))
    if video is not None:
        sections.append(Section("key-frames", "Do key frames stand out?", key_frames_section(video, origin_us)))
    if report.windows:
        sections.append(Section("windows", "Window by window", windows_table(report.windows)))
    sections += [
        Section("settings", "Settings", _settings_section(report)),
        Section("reading", "How to read this", _reading_section()),
    ]
    footer = f"evfi {__version__} · {report.created}"
    return page(report.title, element("p", report.playback, class_="lead"), sections, footer)


def _origin_us(report: JobReport) -> int:
    """The time from which the report counts."""
    if report.windows:
        return report.windows[0].start_us
    return report.video.first_us if report.video is not None else 0


def _figures_section(report: JobReport) -> Html:
    windows = report.windows
    made = sum(window.num_inserted for window in windows)
    figures: list[tuple[str, str | None]] = [
        ("frames in the video", number(report.video.num_frames, 0) if report.video is not None else None),
        ("of them interpolated", number(made, 0)),
        ("windows", number(len(windows), 0)),
        ("of recording", duration((windows[-1].end_us - windows[0].start_us) / 1e6) if windows else None),
        ("of work per interpolated frame", _per_made_frame(windows)),
        ("taken by this run", duration(report.seconds)),
        ("kept from earlier runs", duration(report.seconds_before) if report.seconds_before else None),
    ]
    shown = [
        element("div", element("dt", label), element("dd", value)) for label, value in figures if value is not None
    ]
    outputs = [(name, element("code", path)) for name, path in report.outputs.items()]
    return joined([
        element("dl", *shown, class_="figures"),
        _devices_table(report) if report.devices else None,
        facts_list([*outputs, ("Finished", report.created)]),
    ])  # fmt: skip


def _per_made_frame(windows: Sequence[WindowFacts]) -> str | None:
    """Mean seconds of work for a frame that the model made."""
    worked = [window for window in windows if window.treatment == "interpolate" and window.num_inserted]
    if not worked:
        return None
    return duration(sum(window.seconds for window in worked) / sum(window.num_inserted for window in worked))


def _devices_table(report: JobReport) -> Html:
    rows = []
    for device, (done, busy) in report.devices.items():
        share = f"{100 * busy / report.seconds:.0f} %" if report.seconds > 0 else "–"
        values = (str(done), duration(busy), share)
        rows.append(
            element("tr", element("th", device, scope="row"), *(element("td", one, class_="value") for one in values))
        )
    return table(("Device", "Windows done", "Busy for", "Share of this run"), [rows], None, "compact")


def _warnings_section(report: JobReport) -> Html:
    found = sum(bool(window.finding) for window in report.windows)
    if not report.warnings and not found:
        return element("p", "Nothing unusual was found.")
    lines = [element("li", warning) for warning in report.warnings]
    words = f"{found} of {counted(len(report.windows), 'window')} with a finding, a place to look at in the video."
    return joined([
        element("div", element("ul", *lines), class_="callout") if lines else None,
        element("p", words) if found else None,
        findings_table(report.windows),
    ])  # fmt: skip


def _plots_section(windows: Sequence[WindowFacts]) -> Html:
    titles = finding_titles(windows)
    words = "Much motion means many events; look at places with none at all, or with far more than elsewhere." + (
        " Shaded: windows with a finding." if titles else ""
    )
    plots = element("div", rate_figure(windows, titles), seconds_figure(windows, titles), class_="plots")
    return joined([element("p", words, class_="note"), plots])


def _settings_section(report: JobReport) -> Html:
    parts = []
    for name, values in report.settings.items():
        facts = [(key, _shown(value)) for key, value in values.items()]
        parts += [element("h3", name), facts_list(facts)]
    return joined(parts) if parts else element("p", "None given.")


def _reading_section() -> Html:
    entries = [joined([element("dt", name), element("dd", words)]) for name, words in _READING]
    return element("dl", *entries, class_="definitions")


def _shown(value: object) -> str:
    """A setting as text; never empty."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one) for one in value) or "none"
    return str(value) or "–"


def duration(seconds: float) -> str:
    """A time as people say it: 0.35 s, 12.4 s, 4 min 05 s, 2 h 13 min."""
    if seconds < 1:
        return f"{seconds:.2g} s" if seconds >= 0.001 else f"{seconds * 1e3:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
