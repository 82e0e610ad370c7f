from __future__ import annotations

import re

import pytest

from evfi.evaluation.report.plots import Point, Series, dot_plot, line_chart, marker, quantile, strip_plot
from html_page import Node, parse_page


def texts(plot: Node) -> list[str]:
    return [text.text for text in plot.all("text")]


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
