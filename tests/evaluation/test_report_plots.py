from __future__ import annotations

import itertools
import re

import pytest
from html_page import Node, parse_page
from hypothesis import given
from hypothesis import strategies as st

from evfi.evaluation.report.plots import Axis, Point, Series, dot_plot, line_chart, marker, quantile, strip_plot

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


def texts(plot: Node) -> list[str]:
    return [text.text for text in plot.all("text")]


@given(low=NUMBERS, span=st.floats(1e-4, 1e6), most=st.integers(3, 10))
def test_ticks_are_round_few_and_inside(low: float, span: float, most: int) -> None:
    axis = Axis(low, low + span, 0.0, 100.0)
    ticks = axis.ticks(most)
    assert len(ticks) <= most + 1 and all(low - 1e-3 * span <= tick <= low + 1.001 * span for tick in ticks)
    steps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    for step in steps:
        assert re.match(r"[125]\.0+e", f"{step:.3e}") or re.match(r"(9\.9+|4\.9+|1\.9+|0\.9+)", f"{step:.3e}")
    labels = [axis.label(tick, most) for tick in ticks]
    assert len(set(labels)) == len(labels)


def test_tick_labels() -> None:
    axis = Axis(-0.3, 0.3, 0.0, 100.0)
    assert [axis.label(tick, 6) for tick in axis.ticks(6)] == ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2", "0.3"]
    assert [Axis(20, 45, 0, 1).label(tick, 6) for tick in Axis(20, 45, 0, 1).ticks(6)] == [
        "20",
        "25",
        "30",
        "35",
        "40",
        "45",
    ]


def test_axis_keeps_inside() -> None:
    axis = Axis(0.0, 10.0, 50.0, 150.0)
    assert [axis.at(value) for value in (0, 5, 10, -3, 99)] == [50, 100, 150, 50, 150]


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0], [0.0, 0.0], [-1e-9, 1e9]])
def test_plots_of_little(values: list[float]) -> None:
    points = tuple(Point(value, (value - 1, value + 1)) for value in values)
    names = [f"scene {number}" for number in range(len(values))]
    for plot in (
        dot_plot(names, [Series("ours", 0, points)], "PSNR in dB"),
        line_chart([Series("ours", 0, points)], names, "place", "PSNR in dB"),
        strip_plot([Series("ours", 0, points)], "PSNR in dB"),
    ):
        assert "nan" not in plot and "inf" not in plot
        assert "PSNR in dB" in texts(parse_page(plot))


def test_missing_points_leave_gaps_and_tooltips_tell() -> None:
    series = [Series("<ours>", 0, (Point(1.0, None, "one & only"), None)), Series("b", 9, (None, Point(2.0)))]
    plot = parse_page(dot_plot(["first", "second"], series, "x"))
    assert [title.children for title in plot.all("title")] == [["x"], ["one & only"]]
    assert len([node for tag in ("circle", "polygon") for node in plot.all(tag)]) == 4  # two of them in the legend
    assert "<ours>" in texts(plot)


def test_long_names_are_cut_and_told_whole() -> None:
    name = "a sequence with a name that goes on and on"
    plot = parse_page(dot_plot([name], [Series("ours", 0, (Point(1.0),))], "x"))
    assert any(text.endswith("…") for text in texts(plot)) and name in [
        title.children[0] for title in plot.all("title")
    ]


def test_systems_differ_without_colour() -> None:
    shapes = [re.sub(r' class="[^"]*"', "", marker(style, 0, 0)) for style in range(4)]
    assert len(set(shapes)) == 4
    assert len({str(marker(style, 0, 0)) for style in range(16)}) == 16


def test_quantile_is_linear_between_neighbours() -> None:
    assert [quantile([1.0, 2.0, 4.0], share) for share in (0, 0.25, 0.5, 0.75, 1)] == [1, 1.5, 2, 3, 4]
