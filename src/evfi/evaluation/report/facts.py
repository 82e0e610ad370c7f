"""Facts around the numbers: data, protocol, systems, and what was left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from evfi.evaluation.report.context import (
    REGION_TITLES,
    REGION_WORDS,
    TRUTH_TITLES,
    TRUTH_WORDS,
    ReportContext,
    window_limit,
)
from evfi.evaluation.report.tables import system_label
from evfi.evaluation.results import EvaluationResults, SequenceInfo, SystemInfo
from evfi.evaluation.summary import gaps
from evfi.report.markup import Html, counted, element, joined
from evfi.report.parts import facts_list, table

_SHORT_HASH: Final = 12
_SIZE_WORDS: Final = {
    "original": "frames are scored at the size of the recording",
    "floor8": "frames are scored at width and height floored to multiples of 8 (Lanczos)",
}
_AVERAGE_WORDS: Final = {
    "windows": "the mean over windows",
    "sequences": "the mean over sequences",
    "frames": "the mean over inserted frames",
}


def protocol_section(results: EvaluationResults) -> Html:
    """The protocol in plain words."""
    protocol, limit = results.protocol, window_limit(results)
    skips = sorted({window.skip for window in results.windows})
    truths = [str(truth) for truth in _list(protocol.get("truths"))]
    facts: list[tuple[str, object]] = [
        ("Protocol", joined([element("b", protocol.get("title", "")), element("code", protocol.get("name", ""))], " ")),
        ("Rules", protocol.get("description", "")),
        ("Source", protocol.get("source")),
        ("Skips", _listed(skips) + " frames left out between two key frames"),
        ("Windows", _window_words(protocol.get("windows"))),
        ("Of these", None if limit is None else f"at most {limit} windows per sequence and skip, sampled evenly"),
        ("Left out", _drop_words(protocol.get("drop"))),
        ("Part of the frames", _crop_words(protocol.get("crop"))),
        ("Size", _SIZE_WORDS.get(str(protocol.get("size")), protocol.get("size"))),
        ("Truth", joined((f"{TRUTH_TITLES.get(one, one)}: {TRUTH_WORDS.get(one, '')}" for one in truths), "; ")),
        ("The protocol's own average", _AVERAGE_WORDS.get(str(protocol.get("average")))),
        ("Models", _settings_words(protocol.get("sampling"))),
    ]
    remarks = [
        _remarks("Differences from the protocol's source", protocol.get("deviations")),
        _remarks("What the protocol's source does not specify", protocol.get("unverified")),
    ]
    return joined([facts_list(facts), *remarks])


def _listed(words: Sequence[object], last: str = "and") -> str:
    """Words in a row: 1, 3 and 7."""
    texts = [str(word) for word in words]
    return f" {last} ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def _window_words(rule: object) -> str | None:
    if not isinstance(rule, Mapping):
        return None
    stride = rule.get("stride")
    neighbours = "each begins with the last frame of the one before" if stride == "skip+1" else f"every {stride} frames"
    margin = rule.get("tail_margin")
    place = "each window's first frame" if rule.get("tail_after") == "first" else "each window"
    tail = f"at least {margin} frames follow {place}" if margin else "to the end of the sequence"
    extra = "; a sequence too short for that gives its first window" if rule.get("at_least_one") and margin else ""
    return f"from frame {rule.get('first', 0)}, {neighbours}; {tail}{extra}"


def _drop_words(rule: object) -> str | None:
    if not isinstance(rule, Mapping):
        return None
    words = []
    if rule.get("empty"):
        words.append("no events")
    if rule.get("one_polarity"):
        words.append("events of one polarity only")
    if rule.get("max_ratio") is not None:
        words.append(f"more than {rule['max_ratio']:g} positive events per negative one")
    if rule.get("min_ratio") is not None:
        words.append(f"fewer than {rule['min_ratio']:g} of them")
    return f"windows in which an interval between true frames has {_listed(words, 'or')}" if words else "nothing"


def _settings_words(settings: object) -> str | None:
    if not isinstance(settings, Mapping) or not settings:
        return None
    return "sample with " + ", ".join(f"{name} = {_compact(value)}" for name, value in settings.items())


def _crop_words(crop: object) -> str | None:
    if not isinstance(crop, Mapping):
        return None
    return (
        f"only the middle is scored, (side // {crop.get('multiple')} - {crop.get('fewer')}) × {crop.get('multiple')} px"
    )


def _remarks(title: str, entries: object) -> Html | None:
    lines = [
        element("li", element("b", str(entry.get("what", ""))), ": ", str(entry.get("why", "")))
        for entry in _list(entries)
        if isinstance(entry, Mapping)
    ]
    if not lines:
        return None
    return joined([element("h4", title), element("ul", *lines)])


def provenance_section(context: ReportContext) -> Html:
    """Data, systems, versions, hardware, command."""
    results = context.results
    environment = results.environment
    libraries = environment.get("libraries")
    plain = {name: value for name, value in environment.items() if name != "libraries"}
    facts: list[tuple[str, object]] = [
        ("Made", f"{results.created} by evfi {results.evfi_version}"),
        ("Command", element("code", results.command) if results.command else None),
        ("Machine", ", ".join(f"{name}: {_compact(value)}" for name, value in plain.items())),
        ("Libraries", _pairs(libraries) if isinstance(libraries, Mapping) else None),
    ]
    return joined([
        facts_list(facts),
        _data_table(context),
        _systems_table(context),
        _whole_provenance(results),
    ])  # fmt: skip


def _data_table(context: ReportContext) -> Html:
    results = context.results
    scored = Counter(window.sequence for window in results.windows if window.dropped is None)
    dropped = Counter(window.sequence for window in results.windows if window.dropped is not None)
    rows = [_data_row(one, scored[one.name], dropped[one.name]) for one in results.sequences]
    head = ("Sequence", "Format", "Frames", "Size, px", "Sensor, px", "Per second", "Events", "Windows", "Left out",
            "SHA-256 of the data")  # fmt: skip
    warnings = [
        element("li", element("b", sequence.name), ": ", warning)
        for sequence in results.sequences
        for warning in sequence.warnings
    ]
    notes = [element("details", element("summary", f"Reader warnings ({len(warnings)})"), element("ul", *warnings))]
    return joined([table(head, [rows], element("b", "Data"), "facts-table"), *(notes if warnings else [])])


def _data_row(sequence: SequenceInfo, scored: int, dropped: int) -> Html:
    values = (
        sequence.format,
        str(sequence.num_frames),
        "×".join(map(str, sequence.size)),
        "×".join(map(str, sequence.sensor_size)),
        f"{sequence.frame_rate:.4g}",
        "simulated" if sequence.simulated is not None else "recorded",
        str(scored),
        str(dropped),
    )
    name = element("th", sequence.name, scope="row", title=sequence.path)
    return element("tr", name, *(element("td", value) for value in values), element("td", _hash(sequence.fingerprint)))


def _systems_table(context: ReportContext) -> Html:
    rows = [_system_row(context, system) for system in context.results.systems]
    head = ("System", "Kind", "Settings", "Licence of weights", "Device", "SHA-256 of weights and settings")
    return table(head, [rows], element("b", "Systems"), "facts-table")


def _system_row(context: ReportContext, system: SystemInfo) -> Html:
    kinds = {"frames": "frames of another program"}
    return element(
        "tr",
        element("th", system_label(context, system.name), scope="row"),
        element("td", kinds.get(system.kind, system.kind)),
        element("td", _pairs(system.settings) or "–", class_="settings"),
        element("td", system.licence or "–"),
        element("td", system.device or "–"),
        element("td", _hash(system.fingerprint)),
    )


def _whole_provenance(results: EvaluationResults) -> Html:
    whole = {
        "settings": results.settings,
        "protocol": results.protocol,
        "environment": results.environment,
        "sequences": [asdict(sequence) for sequence in results.sequences],
        "systems": [asdict(system) for system in results.systems],
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False, default=str)
    return element("details", element("summary", "All settings and full fingerprints"), element("pre", text))


def omissions_section(context: ReportContext) -> Html:
    """Dropped windows, metrics that are missing, systems that lack windows, notes."""
    results = context.results
    parts: list[Html] = [_dropped_windows(results)]
    if results.missing:
        items = [
            element("li", element("b", name), ": ", reason)
            for name, reason in sorted(results.missing.items())
        ]  # fmt: skip
        parts += [element("h3", "Metrics that could not be computed"), element("ul", *items)]
    undefined = _undefined_lines(context)
    if undefined:
        words = (
            "A metric is undefined where its region is empty or it has no events to use; such windows are not averaged."
        )
        parts += [element("h3", "Not defined"), element("p", words, class_="note"), element("ul", *undefined)]
    others = [*gaps(results), *results.notes]
    if others:
        parts += [element("h3", "Also"), element("ul", *(element("li", line) for line in others))]
    return joined(parts)


def _dropped_windows(results: EvaluationResults) -> Html:
    dropped = [window for window in results.windows if window.dropped is not None]
    if not dropped:
        return element("p", f"No window was dropped; all {len(results.windows)} were scored.")
    by_skip = Counter(window.skip for window in dropped)
    counts = ", ".join(f"{by_skip[skip]} at skip {skip}" for skip in sorted(by_skip))
    rows = [
        element(
            "tr",
            element("th", window.sequence, scope="row"),
            element("td", window.skip, class_="value"),
            element("td", window.index, class_="value"),
            element("td", f"{window.start_frame} to {window.end_frame}"),
            element("td", window.dropped),
        )
        for window in dropped
    ]
    listed = table(("Sequence", "Skip", "Window", "Frames", "Reason"), [rows], None, "facts-table")
    text = f"The protocol drops {len(dropped)} of {counted(len(results.windows), 'window')}: {counts}."
    return joined([element("p", text), element("details", element("summary", "Dropped windows"), listed)])


def _undefined_lines(context: ReportContext) -> list[Html]:
    found: dict[tuple[int, str, str, str], list[str]] = {}
    for (key, system), row in context.summary.items():
        if row.num_undefined:
            found.setdefault(key, []).append(f"{system} {row.num_undefined}")
    return [
        element(
            "li",
            f"skip {skip}, {context.metric(metric).title}, {region}, {truth} truth: windows of ",
            ", ".join(systems),
        )
        for (skip, truth, metric, region), systems in found.items()
    ]


def definitions_section(results: EvaluationResults) -> Html:
    """What each metric is."""
    entries = []
    for metric in results.metrics:
        way = "higher is better" if metric.higher_is_better else "lower is better"
        unit = f", in {metric.unit}" if metric.unit else ""
        truth = "" if metric.needs_truth else ", without ground truth"
        entries.append(
            element(
                "dt", metric.title, " ", element("code", metric.name), f" version {metric.version}, {way}{unit}{truth}"
            )
        )
        entries.append(element("dd", metric.definition))
    return element("dl", *entries, *_regions(results), class_="definitions")


def _regions(results: EvaluationResults) -> list[Html]:
    """What the regions are that have scores."""
    found = dict.fromkeys(score.region for score in results.scores)
    return [
        joined([
            element("dt", REGION_TITLES.get(region, region), " ", element("code", region), " region"),
            element("dd", REGION_WORDS.get(region, "no description"), "."),
        ])
        for region in found
    ]  # fmt: skip


def _hash(fingerprint: str) -> Html:
    return element("code", fingerprint[:_SHORT_HASH], title=fingerprint)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_compact(value)}" for name, value in values.items())


def _compact(value: object) -> str:
    if value is None or value == []:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
