from __future__ import annotations

import dataclasses

import pytest
from results_samples import METRICS, replaced, results_of, sample_results

from evfi.errors import ConfigError
from evfi.evaluation.comparison import ComparisonRow, compare, comparison_lines
from evfi.evaluation.results import EvaluationResults


def refused(a: EvaluationResults, b: EvaluationResults, *systems: str | None) -> str:
    with pytest.raises(ConfigError) as caught:
        compare(a, b, *systems)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_differences_by_hand() -> None:
    a = results_of({"x": {"long": [[1.0], [2.0], [3.0]], "short": [[10.0]]}})
    b = results_of({"x": {"long": [[2.0], [2.0], [2.5]], "short": [[16.0]]}})
    (row,) = compare(a, b).rows
    assert row == ComparisonRow(
        skip=1,
        truth="raw",
        metric="psnr",
        region="all",
        system_a="x",
        system_b="x",
        over_windows=(1 + 0 - 0.5 + 6) / 4,
        over_sequences=(0.5 / 3 + 6) / 2,
        interval=row.interval,
        interval_over="windows",
        num_pairs=4,
        num_sequences=2,
        num_b_better=2,
        num_equal=1,
        num_undefined=0,
    )
    assert row.share_b_better == 2.5 / 4
    assert row.interval is not None
    assert row.interval[0] < row.over_sequences < row.interval[1]  # type: ignore[operator]


def test_lower_is_better_for_distances() -> None:
    results = results_of({"x": {"s": [[0.3], [0.2]]}, "y": {"s": [[0.1], [0.4]]}}, metric=METRICS[1])
    (row,) = compare(results, results, "x", "y").rows
    assert row.over_windows == pytest.approx(0.0)
    assert (row.num_b_better, row.num_pairs) == (1, 2)


def test_swapping_turns_the_sign() -> None:
    results = sample_results()
    forward, backward = compare(results, results, "linear", "other"), compare(results, results, "other", "linear")
    for there, back in zip(forward.rows, backward.rows, strict=True):
        assert there.over_windows == -back.over_windows  # type: ignore[operator]
        assert there.num_b_better + back.num_b_better + there.num_equal == there.num_pairs


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    easy_and_hard = [[20.0], [45.0], [31.0]]
    better = [[value + 0.5 for value in frames] for frames in easy_and_hard]
    (row,) = compare(results_of({"x": {"s": easy_and_hard}}), results_of({"x": {"s": better}})).rows
    assert (row.over_windows, row.interval) == (0.5, (0.5, 0.5))


def test_frames_are_paired_where_both_are_defined() -> None:
    a = results_of({"x": {"s": [[1.0, None], [None, 5.0], [1.0, 2.0]]}}, skip=2)
    b = results_of({"x": {"s": [[2.0, 90.0], [9.0, None], [4.0, 7.0]]}}, skip=2)
    (row,) = compare(a, b).rows
    assert (row.over_windows, row.num_pairs, row.num_undefined) == ((1 + 4) / 2, 2, 1)


def test_only_common_windows_count_and_others_are_told() -> None:
    a = results_of({"x": {"s": [[1.0], [2.0], [3.0]]}})
    b = results_of({"x": {"s": [[2.0], [], []], "t": [[1.0]]}})
    b = replaced(b, sequences=(dataclasses.replace(b.sequences[0], num_frames=9), b.sequences[1]))
    comparison = compare(a, b)
    (row,) = comparison.rows
    assert (row.over_windows, row.num_pairs) == (1.0, 1)
    assert row.interval is None
    assert comparison.notes == (
        "sequences only in B: t",
        "skip 1: 2 windows only in A (x) are left out",
        "skip 1: 1 windows only in B (x) are left out",
    )
    lines = comparison_lines(comparison)
    assert "note: sequences only in B: t" in lines
    assert any("x, B - A" in line for line in lines)


def test_same_names_are_paired_by_default() -> None:
    a = sample_results()
    b = replaced(a, systems=tuple(dataclasses.replace(system, fingerprint="d" * 64) for system in a.systems[:1]))
    b = replaced(b, scores=tuple(score for score in a.scores if score.system == "evfi-tiny"), timings=())
    comparison = compare(a, b)
    assert {(row.system_a, row.system_b) for row in comparison.rows} == {("evfi-tiny", "evfi-tiny")}
    assert comparison.notes == ("evfi-tiny has other weights or settings in B",)
    assert all(row.over_windows == 0 and row.share_b_better in (0.5, None) for row in comparison.rows)


def test_one_evaluation_compares_two_of_its_systems() -> None:
    results = sample_results()
    comparison = compare(results, results, "linear", "evfi-tiny")
    assert len(comparison.rows) == 2 * 2 * 5
    assert all(row.share_b_better == 1 for row in comparison.rows)
    lines = comparison_lines(comparison)
    assert lines[0] == "evfi-tiny - linear: paired differences, 95 % confidence intervals"
    assert "(w): fewer than 4 sequences" in lines[-1]
    assert any("10 (1 undefined) in 3" in line for line in lines)
    assert compare(results, results, "linear", "evfi-tiny") == comparison


def test_systems_that_are_not_there_are_refused() -> None:
    a, b = results_of({"x": {"s": [[1.0]]}}), results_of({"y": {"s": [[1.0]]}})
    assert refused(a, b) == "no system is in both evaluations: A has x, B y; name one of each"
    assert refused(a, b, "x", "z") == "no system 'z' in B; it contains y"
    assert refused(a, b, "x") == "no system 'x' in B; it contains y"
    assert refused(a, a) == "to compare within one evaluation name two of its systems: x"
    assert refused(a, a, "x", "x") == "expected two different systems of one evaluation, got 'x' twice; name another"


def test_other_protocols_are_refused() -> None:
    a = sample_results()
    b = replaced(a, protocol={**a.protocol, "size": "floor8"})
    assert "protocols differ" in refused(a, b)
    assert "size is original in A and floor8 in B" in refused(a, b)
    assert "size is None in A" in refused(replaced(a, protocol={"name": "sample"}), a)


def test_what_a_protocol_tells_only_may_differ() -> None:
    a = sample_results()
    told = {"title": "Other", "skips": [1], "metrics": [], "description": "", "source": "a paper"}
    assert compare(a, replaced(a, protocol={**a.protocol, **told})).rows


def test_other_data_are_refused() -> None:
    a = sample_results()
    other = dataclasses.replace(a.sequences[1], fingerprint="f" * 64)
    b = replaced(a, sequences=(a.sequences[0], other, a.sequences[2]))
    assert refused(a, b).startswith(
        "data differ: sequence 'dog' has fingerprint 646f67000000 in A and ffffffffffff in B"
    )
    names = {"x": {"t": [[1.0]]}}
    assert refused(results_of({"x": {"s": [[1.0]]}}), results_of(names)).startswith("no sequence is in both")


def test_other_windows_are_refused() -> None:
    a = sample_results()
    moved = dataclasses.replace(a.windows[0], times_us=(1, 2, 3))
    assert refused(a, replaced(a, windows=(moved, *a.windows[1:]))).startswith("windows differ: number 0 of 'coffee'")


def test_other_versions_of_metrics_are_refused() -> None:
    a = results_of({"x": {"s": [[1.0]]}})
    b = results_of({"x": {"s": [[1.0]]}}, metric=dataclasses.replace(METRICS[0], version=2))
    assert refused(a, b) == "metric psnr has version 1 in A and 2 in B; score the older one again"
    other = results_of({"x": {"s": [[1.0]]}}, metric=METRICS[1])
    assert refused(a, other).startswith("no metric is in both evaluations")


def test_truths_of_other_autoencoders_are_left_out() -> None:
    a, b = sample_results(), replaced(sample_results(), settings={"vae_truth": "e" * 64})
    comparison = compare(a, b)
    assert {row.truth for row in comparison.rows} == {"raw"}
    assert comparison.notes == ("truth vae is left out: autoencoder None in A, eeeeeeeeeeee in B",)
    assert {row.truth for row in compare(b, b, "linear", "other").rows} == {"raw", "vae"}


def test_metrics_of_one_side_only_are_told() -> None:
    a = sample_results()
    b = replaced(a, metrics=a.metrics[:1], scores=tuple(score for score in a.scores if score.metric == "psnr"))
    comparison = compare(a, b)
    assert {row.metric for row in comparison.rows} == {"psnr"}
    assert comparison.notes == ("metrics only in A: event_consistency, lpips_alex",)


def test_nothing_in_common_is_refused() -> None:
    a = results_of({"x": {"s": [[1.0], []]}})
    b = results_of({"x": {"s": [[], [1.0]]}})
    a = replaced(a, windows=b.windows, sequences=b.sequences)
    assert refused(a, b).startswith("nothing to compare")
