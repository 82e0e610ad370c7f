from __future__ import annotations

import dataclasses
import math

import pytest
from results_samples import SYSTEMS, replaced, results_of, sample_results

from evfi.evaluation.results import Score, Timing
from evfi.evaluation.summary import (
    SummaryRow,
    gaps,
    summarise,
    summarise_sequences,
    summarise_speed,
)


def only(rows: tuple[SummaryRow, ...], **wanted: object) -> SummaryRow:
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    return row


def test_both_averages_by_hand() -> None:
    results = results_of({"a": {"long": [[1.0, 3.0], [4.0, 4.0], [6.0, 6.0]], "short": [[10.0, 20.0]]}}, skip=2)
    (row,) = summarise(results)
    assert row.over_windows == (2 + 4 + 6 + 15) / 4
    assert row.over_sequences == (4 + 15) / 2
    assert row.over_frames == (1 + 3 + 4 + 4 + 6 + 6 + 10 + 20) / 8
    assert (row.num_windows, row.num_sequences, row.num_undefined, row.num_left_out) == (4, 2, 0, 0)
    assert row.interval_over == "windows"


def test_undefined_frames_and_windows_are_left_out_and_counted() -> None:
    results = results_of({"a": {"s": [[1.0, None], [None, math.nan], [3.0, 5.0]], "nothing": [[None, None]]}}, skip=2)
    (row,) = summarise(results)
    assert row.over_windows == (1 + 4) / 2
    assert row.over_sequences == (1 + 4) / 2
    assert row.over_frames == (1 + 3 + 5) / 3
    assert (row.num_windows, row.num_sequences, row.num_undefined) == (2, 1, 2)


def test_nothing_defined_has_no_average() -> None:
    (row,) = summarise(results_of({"a": {"s": [[None], [None]]}}))
    assert (row.over_windows, row.over_sequences, row.over_frames, row.interval) == (None, None, None, None)
    assert (row.interval_over, row.num_windows, row.num_sequences, row.num_undefined) == ("", 0, 0, 2)


def test_one_window_has_no_interval() -> None:
    (row,) = summarise(results_of({"a": {"s": [[1.0]]}}))
    assert (row.over_windows, row.interval, row.interval_over_windows) == (1.0, None, None)


def test_four_sequences_are_drawn_as_sequences() -> None:
    (row,) = summarise(results_of({"a": {name: [[float(n)], [n + 1.0]] for n, name in enumerate("pqrs")}}))
    assert row.interval_over == "sequences"
    assert row.interval is not None
    assert 0.5 <= row.interval[0] < 2 < row.interval[1] <= 3.5


def test_systems_are_averaged_over_the_windows_that_all_have() -> None:
    results = results_of({"whole": {"s": [[1.0], [2.0], [30.0]]}, "part": {"s": [[1.0], [], []], "t": []}})
    whole, part = summarise(results)
    assert (whole.over_windows, whole.num_windows, whole.num_left_out) == (1.0, 1, 2)
    assert (part.over_windows, part.num_windows, part.num_left_out) == (1.0, 1, 0)
    assert gaps(results) == ("skip 1: part is missing 2 of 3 windows",)


def test_a_system_without_any_value_there_does_not_empty_the_others() -> None:
    """Undefined is not absent: a system for which a metric says nothing must not blank out the others."""
    results = results_of({"moves": {"s": [[1.0], [2.0]]}, "stands": {"s": [[None], [None]]}})
    moves, stands = summarise(results)
    assert (moves.over_windows, moves.num_windows) == (1.5, 2)
    assert (stands.over_windows, stands.num_undefined) == (None, 2)
    assert gaps(results) == ()


def test_systems_without_common_windows_have_no_average() -> None:
    rows = summarise(results_of({"a": {"s": [[1.0], []]}, "b": {"s": [[], [2.0]]}}))
    assert [(row.over_windows, row.num_windows, row.num_left_out) for row in rows] == [(None, 0, 1), (None, 0, 1)]


def test_a_metric_that_is_scored_for_some_windows_only_is_told() -> None:
    results = sample_results()
    kept = tuple(
        score
        for score in results.scores
        if not (score.system == "linear" and score.metric == "psnr" and score.skip == 3 and score.sequence == "dog")
    )
    assert gaps(replaced(results, scores=kept)) == tuple(
        f"skip 3, psnr ({region}, {truth}): only 4 of 6 windows are scored for all systems"
        for truth in ("raw", "vae")
        for region in ("all", "moving")
    )


def test_dropped_windows_never_count() -> None:
    results = results_of({"a": {"s": [[1.0], [3.0], [100.0]]}})
    windows = tuple(dataclasses.replace(w, dropped="empty" if w.index == 2 else None) for w in results.windows)
    timings = (Timing("s", 1, 0, "a", 2.0), Timing("s", 1, 2, "a", 50.0))
    results = replaced(results, windows=windows, timings=timings)
    (row,) = summarise(results)
    assert (row.over_windows, row.num_windows) == (2.0, 2)
    assert summarise_speed(results)[0].window_mean_s == 2.0
    assert gaps(results) == ()


def test_rows_come_in_the_order_of_the_results() -> None:
    results = sample_results()
    rows = summarise(results)
    assert [(row.skip, row.truth, row.metric, row.region, row.system) for row in rows] == [
        (skip, truth, metric.name, region, system.name)
        for skip in (1, 3)
        for truth in ("raw", "vae")
        for metric in results.metrics
        for region in (("all", "moving") if metric.needs_truth else ("all",))
        for system in SYSTEMS
    ]
    row = only(rows, skip=1, truth="raw", metric="psnr", region="moving", system="linear")
    assert (row.num_windows, row.num_undefined, row.num_sequences) == (10, 1, 3)


def test_rows_depend_on_neither_order_nor_neighbours() -> None:
    results = sample_results()
    backwards = replaced(results, scores=results.scores[::-1])
    assert summarise(backwards) == summarise(results)
    alone = replaced(results, scores=tuple(score for score in results.scores if score.metric == "lpips_alex"))
    assert summarise(alone) == tuple(row for row in summarise(results) if row.metric == "lpips_alex")
    assert summarise(results, seed=1) != summarise(results)


def test_sequences_by_hand() -> None:
    results = results_of({"a": {"s": [[1.0], [None], [3.0]], "t": [[7.0]]}, "b": {"s": [[2.0], [2.0], [2.0]], "t": []}})
    rows = {(row.sequence, row.system): row for row in summarise_sequences(results)}
    assert set(rows) == {("s", "a"), ("s", "b")}  # "b" lacks the only window of "t"
    assert (rows["s", "a"].over_windows, rows["s", "a"].num_windows, rows["s", "a"].num_undefined) == (2.0, 2, 1)
    assert rows["s", "a"].interval == (1.0, 3.0)
    assert rows["s", "b"].interval == (2.0, 2.0)


def test_speed_by_hand() -> None:
    results = results_of({"a": {"s": [[1.0, 1.0]] * 4}, "b": {"s": [[1.0, 1.0]] * 4}}, skip=2)
    results = replaced(
        results,
        timings=(
            *(Timing("s", 2, index, "a", seconds, index > 0) for index, seconds in enumerate((90.0, 1.0, 2.0, 6.0))),
            Timing("s", 2, 0, "b", 5.0, False),
        ),
    )
    a, b = summarise_speed(results)
    assert (a.frame_mean_s, a.frame_median_s, a.window_mean_s, a.window_median_s) == (1.5, 1.0, 3.0, 2.0)
    assert (a.num_windows, a.num_cold) == (3, 1)
    assert (b.system, b.frame_mean_s, b.frame_median_s, b.num_windows, b.num_cold) == ("b", None, None, 0, 1)


def test_systems_without_timings_have_no_speed() -> None:
    assert {row.system for row in summarise_speed(sample_results())} == {"evfi-tiny", "linear"}


@pytest.mark.parametrize("summary", [summarise, summarise_sequences, summarise_speed, gaps])
def test_nothing_gives_nothing(summary: object) -> None:
    nothing = replaced(sample_results(), scores=(), timings=(), windows=())
    assert summary(nothing) == ()  # type: ignore[operator]


def test_scores_of_one_system_only_make_no_gap() -> None:
    results = results_of({"a": {"s": [[1.0]]}})
    more = replaced(results, scores=(*results.scores, Score("s", 1, 0, "a", "raw", "psnr", "moving", (None,))))
    assert gaps(more) == ()
