"""The report of a job is a whole page of its own, tells what happened, and believes no text."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from evfi.errors import OutputError
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.job_report import JobReport, duration, write_job_report
from evfi.pipeline.job_report_plots import MOST_STEPS, group_windows
from evfi.pipeline.job_report_video import moving_verdict, slice_picture, verdict
from evfi.pipeline.job_report_windows import MOST_FOUND_ROWS, MOST_ROWS, listed_windows
from evfi.pipeline.video_pulse import MovingParts, Spread
from evfi.pipeline.video_statistics import StepSummary, VideoFacts, VideoStatistics
from evfi.pipeline.window_checks import FindingKind
from html_page import Node, parse_page

EVIL = "<script>alert('x')</script>\"&amp;\u202e\x00\ud800"
ORIGIN_US = 7_000_000
WINDOW_US = 40_000
MEANING = "Something changed between the key frames, but there are hardly any events to show how."


def window(index: int, **values: Any) -> WindowFacts:
    start = ORIGIN_US + index * WINDOW_US
    made = WindowFacts(index, start, start + WINDOW_US, 7, 1000 + index, 3, "interpolate", "", (), 7.0, "cuda:0 (card)")
    return replace(made, **values)


def video_of(num_windows: int, size: tuple[int, int] = (40, 30), key_level: int = 100) -> VideoFacts:
    statistics = VideoStatistics(size, 8 * num_windows + 1, 7)
    for index in range(8 * num_windows + 1):
        is_key = index % 8 == 0
        frame = np.full((size[1], size[0], 3), key_level if is_key else 100, np.uint8)
        statistics.add(frame, ORIGIN_US + index * WINDOW_US // 8, is_key)
    return statistics.finish()


def report_of(windows: list[WindowFacts], video: VideoFacts | None = None, **values: Any) -> JobReport:
    report = JobReport(
        title="street",
        created="2025-11-27",
        settings={"Sampling": {"steps": 25, "seed": 0, "detail": False, "start": None, "tile": (512, 320), "name": ""}},
        outputs={"Video": "/videos/street.mp4"},
        windows=windows,
        video=video,
        seconds=100.0,
        seconds_before=0.0,
        playback="8 × slower than real time",
        warnings=(),
        devices={"cuda:0 (card)": (len(windows), 80.0)},
    )
    return replace(report, **values)


def page_of(folder: Path, report: JobReport) -> tuple[Node, str]:
    write_job_report(folder / "report.html", report)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return parse_page(text), text


def section(page: Node, name: str) -> Node:
    return next(one for one in page.all("section") if one.attributes.get("id") == name)


def rows_of(table: Node) -> list[list[str]]:
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in table.all("tbody")[0].all("tr")]


def test_parts_come_in_order_and_anchors_lead_to_them(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, report_of([window(0), window(1)], video_of(2)))
    names = [one.attributes["id"] for one in page.all("section")]
    assert names == ["figures", "warnings", "video", "slice", "time", "key-frames", "windows", "settings", "reading"]
    assert [link.attributes["href"] for link in page.all("nav")[0].all("a")] == [f"#{name}" for name in names]
    assert page.all("h1")[0].text == "street"


def test_figures(tmp_path: Path) -> None:
    windows = [window(0), window(1, treatment="hold", seconds=0.1), window(2)]
    page, _ = page_of(tmp_path, report_of(windows, video_of(3), seconds_before=200.0))
    entries = next(one for one in section(page, "figures").all("dl") if "figures" in one.classes()).all("div")
    assert {entry.all("dt")[0].text: entry.all("dd")[0].text for entry in entries} == {
        "frames in the video": "25",
        "of them interpolated": "21",
        "windows": "3",
        "of recording": "0.12 s",
        "of work per interpolated frame": "1.0 s",  # 7 s of work for 7 frames; the held window does not count
        "taken by this run": "1 min 40 s",
        "kept from earlier runs": "3 min 20 s",
    }
    assert rows_of(section(page, "figures").all("table")[0]) == [["cuda:0 (card)", "3", "1 min 20 s", "80 %"]]
    assert "/videos/street.mp4" in section(page, "figures").text and "8 × slower" in page.all("header")[0].text


def test_settings_are_all_told(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, report_of([window(0)]))
    facts = section(page, "settings").all("dl")[0]
    told = dict(zip((n.text for n in facts.all("dt")), (v.text for v in facts.all("dd")), strict=True))
    assert told == {"steps": "25", "seed": "0", "detail": "no", "start": "none", "tile": "512, 320", "name": "–"}


def test_findings_are_told_by_kind(tmp_path: Path) -> None:
    windows = [window(index) for index in range(12)]
    for index in (1, 2, 3):
        windows[index] = window(index, finding="no-events", notes=("no events at all",), treatment="blend")
    windows[9] = window(9, finding="some_thing", notes=("all changes", "held"), treatment="hold")
    page, _ = page_of(tmp_path, report_of(windows, warnings=("the clock is odd",)))
    told = section(page, "warnings")
    assert [item.text for item in told.all("li")] == ["the clock is odd"] and "4 of 12 windows" in told.text
    assert rows_of(told.all("table")[0]) == [
        ["no events", "3", "1 (at 0.04 s), 2 (at 0.08 s), 3 (at 0.12 s)", "key frames blended", MEANING],
        ["some thing", "1", "9 (at 0.36 s)", "key frame held", "all changesheld"],
    ]
    for plot in section(page, "time").all("svg"):
        titles = [title.children[0] for title in plot.all("title")]
        assert titles[1:] == ["no events: window 1 to 3", "some thing: window 9"]
        shades = [rect for rect in plot.all("rect") if rect.classes() == {"shade", "s1"}]
        assert len(shades) == 1 and "no events (3 windows)" in [text.text for text in plot.all("text")]
    line = rows_of(section(page, "windows").all("table")[0])[9]
    assert line == [
        "9",
        "0.360",
        "40.0",
        "7",
        "1\u2009009",
        "3",
        "key frame held",
        "some thingall changesheld",
        "7.00",
        "cuda:0 (card)",
    ]


def test_every_kind_of_finding_has_a_meaning(tmp_path: Path) -> None:
    kinds = [kind for kind in get_args(FindingKind) if kind]
    page, _ = page_of(tmp_path, report_of([window(index, finding=kind) for index, kind in enumerate(kinds)]))
    rows = rows_of(section(page, "warnings").all("table")[0])
    assert len(rows) == len(kinds) and all(len(row[-1]) > 20 for row in rows)


def test_nothing_unusual(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, report_of([window(0)], video_of(1)))
    assert "Nothing unusual" in section(page, "warnings").text and not section(page, "warnings").all("table")


def test_a_window_begun_twice_says_so(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, report_of([window(0, attempts=2)]))
    assert "started 2 times" in section(page, "windows").text


@pytest.mark.parametrize(
    "windows", [[], [window(0)], [window(0, num_events=0, num_inserted=0, treatment="key", seconds=0.0)]]
)
@pytest.mark.parametrize("video", [None, video_of(1), VideoStatistics((40, 30), 9, 0).finish()])
def test_little(tmp_path: Path, windows: list[WindowFacts], video: VideoFacts | None) -> None:
    report = report_of(windows, video, settings={}, outputs={}, devices={}, seconds=0.0, playback="")
    page, text = page_of(tmp_path, report)
    assert not re.search(r"\b(nan|inf)\b", text.lower()) and page.all("h1")


def test_text_of_strangers_is_text(tmp_path: Path) -> None:
    windows = [window(0, finding=EVIL, notes=(EVIL,), device=EVIL), window(1, treatment=EVIL)]
    report = report_of(
        windows,
        video_of(2),
        title=EVIL,
        created=EVIL,
        settings={EVIL: {EVIL: {EVIL: [EVIL]}}},
        outputs={EVIL: EVIL},
        playback=EVIL,
        warnings=(EVIL,),
        devices={EVIL: (1, 2.0)},
    )
    page, text = page_of(tmp_path, report)
    assert len(page.all("script")) == 1 and "alert" not in page.all("script")[0].text
    assert "alert('x')" in page.text and "<script>alert" not in text
    assert not re.search("[\x00-\x08\u202a-\u202e\ud800-\udfff]", text)


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    page, text = page_of(tmp_path, report_of([window(0, finding="cut")], video_of(1)))
    assert page.all("img")
    for node in [found for tag in ("img", "script", "link", "iframe", "svg", "a", "use") for found in page.all(tag)]:
        for name in ("src", "href", "srcset", "xlink:href"):
            target = node.attributes.get(name)
            assert target is None or target.startswith("data:image/" if node.tag == "img" else "#"), target
    assert not page.all("link") and "@import" not in text and "url(" not in text and "http://" not in text
    policies = [node.attributes.get("content") or "" for node in page.all("meta") if "http-equiv" in node.attributes]
    assert ["default-src 'none'" in policy for policy in policies] == [True]
    assert not re.search(r'<[^>]* (style|on\w+)="', text)


def test_long_recordings_stay_small_and_quick(tmp_path: Path) -> None:
    video = video_of(2000, (1280, 8))
    noise = np.random.default_rng(0).integers(0, 256, video.xt_slice.shape, np.uint8) // 8 + 100
    windows = [window(index, finding="cut" if index % 5 == 0 else "", notes=("a word on it",)) for index in range(2000)]
    began = time.perf_counter()
    page, text = page_of(tmp_path, report_of(windows, replace(video, xt_slice=noise)))
    assert time.perf_counter() - began < 10
    assert len(text) < 2_000_000
    listed = rows_of(section(page, "windows").all("table")[0])
    assert (
        "500 of 2000 windows are listed: all 400 with a finding, and 100 of the others" in section(page, "windows").text
    )
    assert len(listed) == 500 and {str(index) for index in range(0, 2000, 5)} <= {line[0] for line in listed}


def test_listed_windows() -> None:
    assert len(listed_windows([window(index) for index in range(MOST_ROWS)])) == MOST_ROWS
    many = [window(index, finding="cut") for index in range(3 * MOST_FOUND_ROWS)]
    shown = listed_windows(many)
    assert len(shown) == MOST_FOUND_ROWS and [one.index for one in shown] == list(range(0, len(many), 3))
    mixed = [window(index, finding="cut" if index < 20 else "") for index in range(1000)]
    indices = [one.index for one in listed_windows(mixed)]
    assert len(indices) == MOST_ROWS and indices == sorted(indices) and indices[:20] == list(range(20))


def test_windows_are_drawn_together_where_there_are_many() -> None:
    groups, size = group_windows([window(index, num_events=400, seconds=index % 2) for index in range(4 * MOST_STEPS)])
    assert (len(groups), size) == (MOST_STEPS, 4)
    assert groups[1].start_us == ORIGIN_US + 4 * WINDOW_US and groups[1].end_us == ORIGIN_US + 8 * WINDOW_US
    assert groups[1].events_per_s == pytest.approx(400 * 4 / 0.16) and groups[1].seconds == 0.5
    assert group_windows([window(0)])[1] == 1


class TestKeyFrames:
    def test_table(self, tmp_path: Path) -> None:
        page, _ = page_of(tmp_path, report_of([window(0), window(1)], video_of(2, key_level=103)))
        told = section(page, "key-frames")
        assert rows_of(told.all("table")[1]) == [
            ["Key frames, as recorded", "3.00", "3.00", "3.00", "3.00", "1", "0"],
            ["Interpolated frames", "0.00", "0.00", "0.00", "0.00", "10", "0"],
        ]
        assert "Yes: key frames jump" in told.text and "at 0.040 s: 3.00 levels brighter" in told.text

    def test_words(self) -> None:
        steady = video_of(3).key_frame_steps
        assert verdict(steady, ORIGIN_US) == "No: key frames are about as bright as the frames around them."
        few = replace(steady, key=StepSummary(50, 0, (0.1, 2.5), (0.1, 0.2)), worst_us=ORIGIN_US, worst=-4.0)
        assert verdict(few, ORIGIN_US) == (
            "A few do: some key frames jump in brightness enough to be seen. "
            "The largest jump is at 0.000 s: 4.00 levels darker."
        )
        grainy = replace(steady, key=StepSummary(50, 0, (0.1, 0.2), (2.0, 3.0)))
        assert "grainier" in verdict(grainy, ORIGIN_US)
        assert "too little stands still" in verdict(
            replace(steady, key=StepSummary(0, 3, None, None), worst_us=None), ORIGIN_US
        )
        assert "none lies between two interpolated frames" in verdict(video_of(1).key_frame_steps, ORIGIN_US)


class TestMovingParts:
    FOUND = MovingParts(20, 1, 0, Spread(0.364, (0.34, 0.39)), Spread(0.1, (-0.2, 0.3)), ORIGIN_US + 12_000, 0.4)

    def test_table_and_answer(self, tmp_path: Path) -> None:
        page, _ = page_of(tmp_path, report_of([window(0)], replace(video_of(1), moving_parts=self.FOUND)))
        told = section(page, "key-frames")
        assert rows_of(told.all("table")[0]) == [
            ["Interpolated frames less sharp, in %", "36", "34", "39"],
            ["Key frames brighter, in levels of 255", "0.10", "\u22120.20", "0.30"],
        ]
        assert "Where things move. Yes: moving parts are 36\u00a0% less sharp" in told.text
        assert "Windows compared: 20;" in told.text and "motion or detail: 1." in told.text

    def test_words(self) -> None:
        assert moving_verdict(self.FOUND, ORIGIN_US) == (
            "Yes: moving parts are 36\u00a0% less sharp in interpolated frames than in key frames (median over 20 windows), "
            "so they are likely to pulse at the key frames. "
            "The largest loss of sharpness, 40\u00a0%, is after the key frame at 0.012 s."
        )
        steady = replace(self.FOUND, sharpness_loss=Spread(0.02, (-0.03, 0.05)), worst_loss=0.06)
        assert moving_verdict(steady, ORIGIN_US) == (
            "No: moving parts are about as sharp and as bright in interpolated frames as in key frames "
            "(2\u00a0% less sharp, median over 20 windows)."
        )
        few = replace(steady, sharpness_loss=Spread(0.02, (-0.03, 0.35)))
        assert moving_verdict(few, ORIGIN_US).startswith(
            "A few do: in some windows, interpolated frames are 35\u00a0% less"
        )
        sharper = replace(steady, sharpness_loss=Spread(-0.2, (-0.3, -0.1)))
        assert moving_verdict(sharper, ORIGIN_US).startswith(
            "Yes: moving parts are 20\u00a0% more sharp in interpolated"
        )

    def test_words_of_brightness(self) -> None:
        steady = replace(self.FOUND, sharpness_loss=Spread(0.02, (-0.03, 0.05)), worst_loss=0.06)
        darker = moving_verdict(replace(steady, brightness=Spread(-1.5, (-2.0, 0.1))), ORIGIN_US)
        assert darker == "Yes: moving parts are 1.5 levels darker in key frames than in interpolated frames."
        both = moving_verdict(replace(self.FOUND, brightness=Spread(0.1, (-0.2, 2.5))), ORIGIN_US)
        assert (
            both.startswith("Yes: moving parts are 36")
            and " In some windows, moving parts are 2.5 levels bright" in both
        )

    def test_what_cannot_be_told(self) -> None:
        assert moving_verdict(video_of(2).moving_parts, ORIGIN_US).startswith("This cannot be measured for this video")
        unsure = moving_verdict(replace(self.FOUND, num_unknown_noise=15), ORIGIN_US)
        assert unsure.endswith("key-frame noise could not be separated from sharpness.")


def test_slice_is_enlarged_and_marks_key_frames() -> None:
    shown = slice_picture(video_of(2))
    assert shown.shape == (17 * (360 // 17), 10 + 40 * (700 // 40), 3)
    marks = shown[:: 360 // 17, 0]
    assert np.flatnonzero((marks == (0, 114, 178)).all(axis=1)).tolist() == [0, 8, 16]
    assert (shown[:, 10:] == 100).all()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 ms"), (0.0004, "0.4 ms"), (0.35, "0.35 s"), (1, "1.0 s"), (59.96, "1 min 00 s"), (245, "4 min 05 s"),
     (3599.7, "1 h 00 min"), (7980, "2 h 13 min")],
)  # fmt: skip
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        write_job_report(tmp_path / "missing" / "report.html", report_of([window(0)]))
