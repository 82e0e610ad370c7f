"""Compare two systems on the same windows: paired differences, from one evaluation or two.

Differences of pairs say more than a difference of averages: how hard a window is cancels out. A pair is one window that both
have; its difference is the mean over the inserted frames that are defined in both. What could not be paired is listed in notes.
Evaluations are compared only where that means something: same protocol, same data, same windows, same metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from evfi.errors import ConfigError
from evfi.evaluation.bootstrap import interval
from evfi.evaluation.results import EvaluationResults, MetricInfo
from evfi.evaluation.results_table import Table, interval_text, metric_title, number_text, text_lines
from evfi.evaluation.score_cells import (
    Cell,
    WindowKey,
    by_sequence,
    cells_of,
    mean_over_sequences,
    mean_over_windows,
    paired_difference,
)
from evfi.evaluation.summary import Ends

_PROTOCOL_TELLS_ONLY: Final = frozenset(
    {"title", "description", "source", "datasets", "layouts", "unverified", "skips", "truths", "metrics", "average"}
)
"""Fields of a protocol that change no value: they say what to compute and show, or are for people."""

VAE_TRUTH: Final = "vae_truth"
"""In an evaluation's settings: the fingerprint of the autoencoder that true frames passed through."""


@dataclass(frozen=True)
class ComparisonRow:
    """B minus A.

    Attributes:
        skip: true frames left out between key frames.
        truth: "raw" or "vae".
        metric: by name.
        region: "all" or the name of a smaller one.
        system_a: in A.
        system_b: in B.
        over_windows: mean difference over windows; None where no pair is defined, like the next.
        over_sequences: mean of the sequences' mean differences.
        interval: 95 % interval of `over_sequences`; None where there is too little to draw from.
        interval_over: what it was drawn over: "sequences", or "windows" of the same sequences; "" without any.
        num_pairs: windows that were compared.
        num_sequences: sequences that they belong to.
        num_b_better: windows in which B is strictly better.
        num_equal: windows in which both are the same.
        num_undefined: windows that both have, without a frame that is defined in both.
    """

    skip: int
    truth: str
    metric: str
    region: str
    system_a: str
    system_b: str
    over_windows: float | None
    over_sequences: float | None
    interval: Ends | None
    interval_over: str
    num_pairs: int
    num_sequences: int
    num_b_better: int
    num_equal: int
    num_undefined: int

    @property
    def share_b_better(self) -> float | None:
        """Share of windows in which B is better, equal ones counted half; None without pairs."""
        return (self.num_b_better + self.num_equal / 2) / self.num_pairs if self.num_pairs else None


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        rows: by pair of systems, skip, truth, metric and region.
        metrics: those that were compared.
        notes: what could not be compared, one line each.
    """

    rows: tuple[ComparisonRow, ...]
    metrics: tuple[MetricInfo, ...]
    notes: tuple[str, ...]


def compare(
    a: EvaluationResults,
    b: EvaluationResults,
    system_a: str | None = None,
    system_b: str | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare systems of two evaluations, or of one with itself, window by window.

    Args:
        a: the one that is subtracted.
        b: the other; the same object compares two systems of one evaluation.
        system_a: a system of A; None pairs systems of the same name.
        system_b: a system of B; None is the one of the same name.
        seed: of the bootstrap's draws.

    Returns:
        Differences B - A.

    Raises:
        ConfigError: protocols, data, windows or versions of metrics differ, or nothing is common.
    """
    pairs = _pairs(a, b, system_a, system_b)
    _check_protocols(a.protocol, b.protocol)
    _check_data(a, b)
    _check_windows(a, b)
    metrics = _common_metrics(a, b)
    cells_a = {cell.key: cell for cell in cells_of(a)}
    cells_b = {cell.key: cell for cell in cells_of(b)}
    better = {metric.name: 1 if metric.higher_is_better else -1 for metric in metrics}
    truth_note = _note_of_truth(a, b)
    rows = [
        _row(cells_a[key], cells_b[key], pair, better[key[2]], seed)
        for pair in pairs
        for key in cells_a
        if key in cells_b and key[2] in better and not (truth_note and key[1] == "vae")
        if pair[0] in cells_a[key].systems and pair[1] in cells_b[key].systems
    ]
    rows = [row for row in rows if row.num_pairs + row.num_undefined]
    if not rows:
        raise ConfigError(
            "nothing to compare: expected a window that both evaluations scored with the same metric, found none"
        )
    notes = [*truth_note, *_notes_of_names(a, b, pairs), *_notes_of_windows(cells_a.values(), cells_b.values(), pairs)]
    return Comparison(tuple(rows), metrics, tuple(dict.fromkeys(notes)))


def comparison_lines(comparison: Comparison) -> list[str]:
    """A comparison as text for the terminal, line by line, its notes last."""
    lines: list[str] = []
    for pair in dict.fromkeys((row.system_a, row.system_b) for row in comparison.rows):
        table = comparison_table(comparison, *pair)
        names = f"{pair[1]} - {pair[0]}" if pair[0] != pair[1] else f"{pair[0]}, B - A"
        lines += [f"{names}: paired differences, 95 % confidence intervals", "", *text_lines(table), ""]
    if any(row.interval_over == "windows" for row in comparison.rows):
        lines += [
            "(w): fewer than 4 sequences, so the interval covers other windows of these sequences only.",
            "",
        ]
    lines += [f"note: {note}" for note in comparison.notes]
    return lines if lines[-1:] != [""] else lines[:-1]


def comparison_table(comparison: Comparison, system_a: str, system_b: str) -> Table:
    """The rows of one pair of systems as a table."""
    infos = {metric.name: metric for metric in comparison.metrics}
    header = ("skip", "truth", "region", "metric", "over windows", "over sequences", "interval", "B better", "pairs")
    rows = [row for row in comparison.rows if (row.system_a, row.system_b) == (system_a, system_b)]
    return Table(header, tuple(_cells(row, infos[row.metric]) for row in rows))


def _cells(row: ComparisonRow, metric: MetricInfo) -> tuple[str, ...]:
    decimals = metric.decimals + 1
    share = row.share_b_better
    undefined = f" ({row.num_undefined} undefined)" if row.num_undefined else ""
    return (
        str(row.skip),
        row.truth,
        row.region,
        metric_title(metric),
        number_text(row.over_windows, decimals, sign=True),
        number_text(row.over_sequences, decimals, sign=True),
        interval_text(row.interval, decimals, sign=True) + (" (w)" if row.interval_over == "windows" else ""),
        number_text(None if share is None else 100 * share, 0) + ("" if share is None else " %"),
        f"{row.num_pairs}{undefined} in {row.num_sequences}",
    )


def _pairs(
    a: EvaluationResults, b: EvaluationResults, system_a: str | None, system_b: str | None
) -> tuple[tuple[str, str], ...]:
    """Which system of A is compared with which of B."""
    names_a, names_b = [s.name for s in a.systems], [s.name for s in b.systems]
    first, second = system_a or system_b, system_b or system_a
    if first is not None and second is not None:
        for name, names, which in ((first, names_a, "A"), (second, names_b, "B")):
            if name not in names:
                raise ConfigError(f"no system {name!r} in {which}; it contains {', '.join(names) or 'none'}")
        if a is b and first == second:
            raise ConfigError(f"expected two different systems of one evaluation, got {first!r} twice; name another")
        return ((first, second),)
    if a is b:
        raise ConfigError(f"to compare within one evaluation name two of its systems: {', '.join(names_a) or 'none'}")
    common = tuple((name, name) for name in names_a if name in names_b)
    if not common:
        raise ConfigError(
            f"no system is in both evaluations: A has {', '.join(names_a) or 'none'}, B {', '.join(names_b) or 'none'}; "
            f"name one of each"
        )
    return common


def _check_protocols(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in (*a, *b):
        if name not in _PROTOCOL_TELLS_ONLY and a.get(name) != b.get(name):
            raise ConfigError(
                f"protocols differ, so numbers cannot be compared: {name} is {str(a.get(name))[:60]} in A and "
                f"{str(b.get(name))[:60]} in B; evaluate both with the same protocol"
            )


def _check_data(a: EvaluationResults, b: EvaluationResults) -> None:
    infos_b = {sequence.name: sequence for sequence in b.sequences}
    common = [sequence for sequence in a.sequences if sequence.name in infos_b]
    if not common:
        raise ConfigError("no sequence is in both evaluations; evaluate both on the same data")
    for sequence in common:
        if sequence.fingerprint != infos_b[sequence.name].fingerprint:
            raise ConfigError(
                f"data differ: sequence {sequence.name!r} has fingerprint {sequence.fingerprint[:12]} in A and "
                f"{infos_b[sequence.name].fingerprint[:12]} in B; evaluate both on the same files"
            )


def _check_windows(a: EvaluationResults, b: EvaluationResults) -> None:
    windows_b = {window.key: window for window in b.windows}
    for window in a.windows:
        other = windows_b.get(window.key)
        if other is not None and (window.start_frame, window.times_us) != (other.start_frame, other.times_us):
            raise ConfigError(
                f"windows differ: number {window.index} of {window.sequence!r}, skip {window.skip}, starts at frame "
                f"{window.start_frame} in A and {other.start_frame} in B, or has other times; evaluate both again"
            )


def _common_metrics(a: EvaluationResults, b: EvaluationResults) -> tuple[MetricInfo, ...]:
    infos_b = {metric.name: metric for metric in b.metrics}
    common = tuple(metric for metric in a.metrics if metric.name in infos_b)
    if not common:
        raise ConfigError("no metric is in both evaluations; score one of them again with a metric of the other")
    for metric in common:
        version = infos_b[metric.name].version
        if metric.version != version or metric.higher_is_better != infos_b[metric.name].higher_is_better:
            raise ConfigError(
                f"metric {metric.name} has version {metric.version} in A and {version} in B; score the older one again"
            )
    return common


def _row(a: Cell, b: Cell, pair: tuple[str, str], better: int, seed: int) -> ComparisonRow:
    values_a, values_b = a.systems[pair[0]], b.systems[pair[1]]
    differences = {
        window: paired_difference(values, values_b[window]) for window, values in values_a.items() if window in values_b
    }
    groups = by_sequence(differences)
    ends = interval(list(groups.values()), seed=seed)
    defined = [difference for group in groups.values() for difference in group]
    return ComparisonRow(
        *(*a.key, *pair),
        over_windows=mean_over_windows(groups),
        over_sequences=mean_over_sequences(groups),
        interval=None if ends is None else (ends.low, ends.high),
        interval_over="" if ends is None else ends.over,
        num_pairs=len(defined),
        num_sequences=len(groups),
        num_b_better=sum(difference * better > 0 for difference in defined),
        num_equal=sum(difference == 0 for difference in defined),
        num_undefined=len(differences) - len(defined),
    )


def _note_of_truth(a: EvaluationResults, b: EvaluationResults) -> tuple[str, ...]:
    """A note if ground truth passed through different autoencoders, so that "vae" differs."""
    first, second = a.settings.get(VAE_TRUTH), b.settings.get(VAE_TRUTH)
    if first == second:
        return ()
    return (f"truth vae is left out: autoencoder {str(first)[:12]} in A, {str(second)[:12]} in B",)


def _notes_of_names(a: EvaluationResults, b: EvaluationResults, pairs: tuple[tuple[str, str], ...]) -> Iterable[str]:
    for what, names_a, names_b in (
        ("sequences", {s.name for s in a.sequences}, {s.name for s in b.sequences}),
        ("metrics", {m.name for m in a.metrics}, {m.name for m in b.metrics}),
    ):
        for which, only in (("A", names_a - names_b), ("B", names_b - names_a)):
            if only:
                yield f"{what} only in {which}: {', '.join(sorted(only))}"
    prints_a = {system.name: system.fingerprint for system in a.systems}
    prints_b = {system.name: system.fingerprint for system in b.systems}
    for first, second in pairs:
        if first == second and prints_a[first] != prints_b[second]:
            yield f"{first} has other weights or settings in B"


def _notes_of_windows(
    cells_a: Iterable[Cell], cells_b: Iterable[Cell], pairs: tuple[tuple[str, str], ...]
) -> Iterable[str]:
    windows_a, windows_b = _windows_of(cells_a), _windows_of(cells_b)
    for first, second in pairs:
        skips = sorted(
            {skip for skip, name in windows_a if name == first} | {s for s, name in windows_b if name == second}
        )
        for skip in skips:
            have_a, have_b = windows_a.get((skip, first), set()), windows_b.get((skip, second), set())
            for which, only in ((f"A ({first})", have_a - have_b), (f"B ({second})", have_b - have_a)):
                if only:
                    yield f"skip {skip}: {len(only)} windows only in {which} are left out"


def _windows_of(cells: Iterable[Cell]) -> dict[tuple[int, str], set[WindowKey]]:
    windows: dict[tuple[int, str], set[WindowKey]] = {}
    for cell in cells:
        for system, values in cell.systems.items():
            windows.setdefault((cell.skip, system), set()).update(values)
    return windows
