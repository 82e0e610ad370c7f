from __future__ import annotations

import csv
from pathlib import Path

import pytest
from results_samples import METRICS, replaced, results_of, sample_results

from evfi.errors import ConfigError
from evfi.evaluation.results import Score
from evfi.evaluation.results_table import markdown_table, speed_table, text_lines, text_table, write_csv
from evfi.evaluation.summary import summarise, summarise_speed


def test_csv_holds_every_value(tmp_path: Path) -> None:
    results = sample_results()
    write_csv(tmp_path / "results.csv", results)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(len(score.values) for score in results.scores)
    values = [value for score in results.scores for value in score.values]
    assert [float(row["value"]) if row["value"] else None for row in rows] == values
    assert rows[0] == {
        "sequence": "coffee",
        "skip": "1",
        "window": "0",
        "frame": "1",
        "time_us": "10000",
        "system": "evfi-tiny",
        "truth": "raw",
        "metric": "psnr",
        "unit": "dB",
        "region": "all",
        "value": repr(values[0]),
    }
    last = [row for row in rows if row["skip"] == "3" and row["window"] == "1"][-1]
    assert (last["frame"], last["time_us"]) == ("7", "70000")


def test_csv_of_results_that_do_not_fit_is_refused(tmp_path: Path) -> None:
    results = replaced(sample_results(), scores=(Score("cat", 1, 0, "linear", "raw", "psnr", "all", (1.0,)),))
    with pytest.raises(ConfigError, match="there is no window"):
        write_csv(tmp_path / "results.csv", results)
    assert not list(tmp_path.iterdir())


def test_markdown_has_both_averages_and_marks_the_best() -> None:
    results = results_of({"a": {"s": [[30.0], [31.0]], "t": [[20.0]]}, "b|c": {"s": [[29.0], [29.0]], "t": [[19.0]]}})
    assert markdown_table(summarise(results), results.metrics) == (
        "| skip | truth | region | metric | windows | a | b\\|c |\n"
        "|---|---|---|---|---|---|---|\n"
        "| 1 | raw | all | PSNR ↑ (dB) | 3 in 2 | **27.00 / 25.25** | 25.67 / 24.00 |\n"
    )


def test_what_is_printed_alike_is_marked_alike_and_less_may_be_better() -> None:
    values = {"a": {"s": [[0.1001]]}, "b": {"s": [[0.1]]}, "c": {"s": [[0.2]]}, "d": {"s": [[None]]}}
    results = results_of(values, metric=METRICS[1])
    line = markdown_table(summarise(results), results.metrics).splitlines()[2]
    assert line == (
        "| 1 | raw | all | LPIPS ↓ | 1 in 1 | **0.100 / 0.100** | **0.100 / 0.100** | 0.200 / 0.200 | – / – (0 windows) |"
    )


def test_text_is_aligned() -> None:
    results = sample_results()
    lines = text_table(summarise(results), results.metrics, with_intervals=True)
    column = lines[0].index("linear")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    assert "10 (1 undefined) in 3" in lines[2]
    assert " *" in lines[1]


def test_systems_that_lack_a_row_have_a_dash() -> None:
    results = sample_results()
    scores = tuple(score for score in results.scores if score.system != "other" or score.skip == 1)
    line = markdown_table(summarise(replaced(results, scores=scores)), results.metrics).splitlines()[-1]
    assert line.endswith("| – |")


def test_speed() -> None:
    lines = text_lines(speed_table(summarise_speed(sample_results())))
    assert lines[1] == "1     0.5 s (0.5 s)  0.01 s (0.01 s)"
