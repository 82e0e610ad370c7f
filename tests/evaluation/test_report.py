"""The report of an evaluation is a whole page of its own, shows the numbers of `summary`, and believes no text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from results_samples import METRICS, SYSTEMS, replaced, results_of, sample_results, sequence_info

from evfi.errors import OutputError
from evfi.evaluation.protocol import load_protocol, protocol_names
from evfi.evaluation.report import windows, write_report
from evfi.evaluation.report.context import TRUTH_TITLES, ReportContext
from evfi.evaluation.report.pictures import (
    ERROR_TOP,
    PictureSource,
    WindowPictures,
    cut_out,
    error_colours,
    error_map,
    slice_through_time,
    telling_box,
    with_box,
)
from evfi.evaluation.results import EvaluationResults, WindowRecord
from evfi.evaluation.summary import summarise
from html_page import Node, parse_page

EVIL = "<script>alert('x')</script>\"&amp;\u202e\x00\ud800"


class MadeUpPictures:
    """Noise for truth and systems; counts how often it is asked."""

    def __init__(self, systems: tuple[str, ...] = tuple(system.name for system in SYSTEMS)) -> None:
        self.systems, self.asked = systems, 0

    def window(self, record: WindowRecord) -> WindowPictures:
        self.asked += 1
        generator = np.random.default_rng(record.index)
        shape = (len(record.times_us), 12, 20, 3)
        frames = {name: generator.integers(0, 256, shape, np.uint8) for name in self.systems}
        return WindowPictures(generator.integers(0, 256, shape, np.uint8), frames, np.full((6, 10, 3), 255, np.uint8))


def page_of(folder: Path, results: EvaluationResults, pictures: PictureSource | None = None) -> tuple[Node, str]:
    write_report(folder / "report.html", results, pictures)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return parse_page(text), text


def section(page: Node, name: str) -> Node:
    return next(one for one in page.all("section") if one.attributes.get("id") == name)


def value_of(shown: str) -> float | None:
    return None if shown == "–" else float(shown.replace("−", "-").replace("\u2009", ""))


def test_tables_hold_the_averages_and_intervals_of_summarise(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, sample_results())
    titles = {"Whole frame": "all", "Moving region": "moving"}
    rows = {(r.skip, r.truth, r.region, r.metric, r.system): r for r in summarise(sample_results())}
    seen = 0
    blocks = [block for block in section(page, "results").all("div") if {"truth", "raw"} <= block.classes()]
    blocks += [block for block in section(page, "results").all("div") if {"truth", "vae"} <= block.classes()]
    for block, (truth, skip) in zip(blocks, [("raw", 1), ("raw", 3), ("vae", 1), ("vae", 3)], strict=True):
        assert next(span.text for span in block.all("span") if "badge" in span.classes()) == TRUTH_TITLES[truth]
        for table in block.all("table"):
            region = titles[table.all("b")[0].text]
            for average, body in zip(("over_sequences", "over_windows"), table.all("tbody"), strict=True):
                for line in body.all("tr")[1:]:
                    system = line.all("th")[0].text
                    for metric, cell in zip(METRICS[:2], line.all("td"), strict=True):
                        row = rows[skip, truth, region, metric.name, system]
                        mean = getattr(row, average)
                        ends = row.interval if average == "over_sequences" else row.interval_over_windows
                        shown, *brackets = [part.text for part in cell.all("span") + cell.all("strong")]
                        texts = [shown, *brackets]
                        number = next(text for text in texts if not text.startswith("["))
                        assert value_of(number) == pytest.approx(mean, abs=0.51 * 10**-metric.decimals)
                        assert float(cell.attributes["data-value"] or "nan") == mean
                        bracket = next(text for text in texts if text.startswith("["))
                        assert [value_of(part) for part in bracket.strip("[]").split(", ")] == pytest.approx(
                            ends, abs=0.51 * 10**-metric.decimals
                        )
                        seen += 1
    assert seen == 2 * 2 * 2 * 2 * 3 * 2  # skips, truths, regions, averages, systems, metrics


def test_average_over_frames_where_it_is_the_protocols_own(tmp_path: Path) -> None:
    values = {"ours": {"a": [[1.0, 2.0], [None, 6.0]], "b": [[4.0, 4.0]]}}
    results = results_of(values, skip=2)
    assert len(section(page_of(tmp_path, results)[0], "results").all("tbody")) == 2
    own = replaced(results, protocol={**results.protocol, "average": "frames", "crop": {"multiple": 32, "fewer": 1}})
    page, _ = page_of(tmp_path, own)
    *_, frames = section(page, "results").all("tbody")
    assert "(the protocol's own)" in frames.text
    assert frames.all("td")[0].text == "3.40"  # (1 + 2 + 6 + 4 + 4) / 5
    assert "(side // 32 - 1) × 32 px" in section(page, "protocol").text


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_is_told_in_words(tmp_path: Path, name: str) -> None:
    protocol = load_protocol(name)
    results = replaced(results_of({"ours": {"a": [[1.0], [2.0]]}}), protocol=protocol.to_dict())
    told = section(page_of(tmp_path, replaced(results, settings={"config": {"windows": 7}}))[0], "protocol").text
    assert protocol.description in told and "at most 7 windows" in told
    for remark in (*protocol.deviations, *protocol.unverified):
        assert remark.why in told


def test_truths_are_never_in_one_table_and_truthless_metrics_stand_apart(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, sample_results())
    blocks = [block for block in section(page, "results").all("div") if "truth" in block.classes()]
    assert [sorted(block.classes() - {"truth"}) for block in blocks] == [["raw"], ["vae"], ["none"]] * 2
    for block in blocks:
        has_events = any("Events" in table.all("thead")[0].text for table in block.all("table"))
        assert has_events == ("none" in block.classes())


def test_bold_only_where_the_paired_difference_is_clear(tmp_path: Path) -> None:
    good, bad = ([[value] for value in values] for values in ([30.0, 31, 32, 33, 34, 35], [20.0, 21, 22.5, 23, 24, 25]))
    page, _ = page_of(tmp_path, results_of({"good": {"a": good}, "bad": {"a": bad}}))
    assert [strong.text for strong in section(page, "results").all("strong")] == ["32.50"]
    assert "better" in section(page, "differences").all("tbody")[0].text
    for mixed in ({"a": [*bad[:3], [41.0], [42.0], [43.0]]}, {"a": bad[:5]}):  # no agreement; too few
        page, _ = page_of(tmp_path, results_of({"good": {"a": good[: len(mixed["a"])]}, "bad": mixed}))
        assert not section(page, "results").all("strong")
        assert "better" not in section(page, "differences").all("tbody")[0].text


def test_differences_are_paired_and_say_which_way_is_better(tmp_path: Path) -> None:
    values = {"ours": {"a": [[n / 10] for n in range(6)]}, "theirs": {"a": [[(n + 1) / 10] for n in range(6)]}}
    page, _ = page_of(tmp_path, results_of(values, metric=METRICS[1]))
    cell = section(page, "differences").all("td")[0]
    assert [part.text for part in cell.all("span")] == ["−0.100", "[−0.100, −0.100]", "better"]


def test_text_of_strangers_is_text(tmp_path: Path) -> None:
    results = sample_results()
    rename = {"street": EVIL}
    results = replaced(
        results,
        sequences=tuple(replace(s, name=rename.get(s.name, s.name), warnings=(EVIL,)) for s in results.sequences),
        windows=tuple(replace(w, sequence=rename.get(w.sequence, w.sequence), dropped=w.dropped and EVIL)
                      for w in results.windows),
        timings=tuple(replace(t, sequence=rename.get(t.sequence, t.sequence)) for t in results.timings),
        scores=tuple(replace(s, sequence=rename.get(s.sequence, s.sequence)) for s in results.scores),
        systems=tuple(replace(s, licence=EVIL, settings={EVIL: EVIL}) for s in results.systems),
        metrics=tuple(replace(m, title=EVIL, definition=EVIL, unit=EVIL) for m in results.metrics),
        protocol={**results.protocol, "description": EVIL, "title": EVIL, "unverified": [{"what": EVIL, "why": EVIL}]},
        environment={EVIL: EVIL, "libraries": {EVIL: EVIL}},
        command=EVIL,
        created=EVIL,
        missing={EVIL: EVIL},
        notes=(EVIL,),
    )  # fmt: skip
    page, text = page_of(tmp_path, results, MadeUpPictures())
    assert len(page.all("script")) == 1 and "alert" not in page.all("script")[0].text
    assert "alert('x')" in page.text and "<script>alert" not in text
    assert not re.search("[\x00-\x08\u202a-\u202e\ud800-\udfff]", text)


def test_page_needs_nothing_else_and_lets_nothing_else_run(tmp_path: Path) -> None:
    page, text = page_of(tmp_path, sample_results(), MadeUpPictures())
    for node in [found for tag in ("img", "script", "link", "iframe", "svg", "a", "use") for found in page.all(tag)]:
        for name in ("src", "href", "srcset", "xlink:href"):
            target = node.attributes.get(name)
            assert target is None or target.startswith("data:" if node.tag == "img" else "#"), target
    assert not page.all("link") and "@import" not in text and "url(" not in text
    policy = next(m.attributes["content"] for m in page.all("meta") if "content-security" in str(m.attributes).lower())
    for tag in ("style", "script"):
        (node,) = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(node.text.encode()).digest()).decode()
        assert policy is not None and f"'sha256-{digest}'" in policy
    assert not re.search(r'<[^>]* (style|on\w+)="', text)  # the policy would not let them through


def test_anchors_lead_somewhere(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, sample_results())
    anchors = {link.attributes["href"] for link in page.all("nav")[0].all("a")}
    assert anchors == {f"#{one.attributes['id']}" for one in page.all("section")} and len(anchors) > 5


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    _, first = page_of(tmp_path, sample_results(), MadeUpPictures())
    _, second = page_of(tmp_path, sample_results(), MadeUpPictures())
    assert first == second


def test_says_what_was_left_out(tmp_path: Path) -> None:
    values = {"ours": {"a": [[1.0], [None], [2.0]]}, "theirs": {"a": [[1.0], [None], []]}}
    results = replaced(results_of(values), notes=("the tail was short",), missing={"lpips_vgg": "no weights"})
    page, _ = page_of(tmp_path, results)
    told = section(page, "omissions").text
    for words in (
        "No window was dropped",
        "lpips_vgg: no weights",
        "the tail was short",
        "theirs is missing 1 of 3",
        "ours 1",
    ):
        assert words in told
    page, _ = page_of(tmp_path, sample_results())
    told = section(page, "omissions").text
    assert "drops 1 of 18 windows: 1 at skip 1" in told and "its events are all positive" in told


def test_says_what_intervals_are_over(tmp_path: Path) -> None:
    few = {"ours": {name: [[1.0], [2.0]] for name in "abc"}}
    many = {"ours": {name: [[1.0], [2.0]] for name in "abcd"}}
    assert "Fewer than 4 sequences" in page_of(tmp_path, results_of(few))[0].text
    assert "Fewer than 4 sequences" not in page_of(tmp_path, results_of(many))[0].text


@pytest.mark.parametrize(
    "values",
    [
        {"ours": {"a": [[30.0]]}},
        {"ours": {"a": [[30.0]]}, "theirs": {"a": [[30.0]]}},
        {"ours": {"a": [[None, None, None]]}, "theirs": {"a": [[1.0, None, 2.0]]}},
        {"ours": {"a": [[1.0, 2.0, 3.0]]}, "theirs": {"b": [[1.0, 2.0, 3.0]]}},
        {
            f"system {n}": {f"sequence {m} of a long name indeed": [[float(n + m)]] for m in range(70)}
            for n in range(11)
        },
    ],
)
def test_small_and_large_cases(tmp_path: Path, values: dict[str, dict[str, list[list[float | None]]]]) -> None:
    page, text = page_of(tmp_path, results_of(values, skip=len(next(iter(next(iter(values.values())).values()))[0])))
    assert not re.search(r"\b(nan|inf)\b", text.lower()) and page.all("h1")


def test_nothing_scored(tmp_path: Path) -> None:
    results = results_of({"ours": {"a": [[1.0], [2.0]]}})
    empty = replaced(results, windows=tuple(replace(w, dropped="no events") for w in results.windows))
    page, _ = page_of(tmp_path, empty, MadeUpPictures())
    assert "Nothing was scored" in section(page, "results").text and "drops 2 of 2" in section(page, "omissions").text
    page_of(tmp_path, replaced(empty, sequences=(), systems=(), metrics=(), windows=(), scores=(), protocol={}))


def test_published_numbers_only_beside_the_same_protocol(tmp_path: Path) -> None:
    from evfi.evaluation.published import all_published_results

    row = next(
        row for row in all_published_results() if row.protocol and row.truth == "raw" and "psnr_rgb" in row.metrics
    )
    metric = replace(METRICS[0], name="psnr_rgb")
    results = results_of({"ours": {"a": [[30.0] * row.skip, [31.0] * row.skip]}}, skip=row.skip, metric=metric)
    results = replaced(results, sequences=(replace(sequence_info("a"), format=row.layout),))
    same = replaced(results, protocol={**results.protocol, "name": row.protocol})
    page, text = page_of(tmp_path, same)
    table = section(page, "published").text
    assert row.system in table and row.source in table and row.url in text and "30.50" in table
    page, _ = page_of(tmp_path, replaced(same, settings={"config": {"windows": 2}}))
    assert row.system not in section(page, "published").text and "not shown" in section(page, "published").text
    page, _ = page_of(tmp_path, results)
    assert not [one for one in page.all("section") if one.attributes.get("id") == "published"]


def test_chooses_largest_loss_largest_gain_and_worst() -> None:
    ours = [[30.0, 30.0], [20.0, 26.0], [33.0, 29.0], [18.0, 18.0]]
    linear = [[31.0, 31.0], [28.0, 28.0], [25.0, 28.0], [17.5, 18.5]]
    results = results_of({"ours": {"a": ours}, "linear": {"a": linear}}, skip=2)
    results = replaced(results, systems=(replace(results.systems[0], kind="model"), results.systems[1]))
    picks = windows.pick_windows(ReportContext(results), 2)
    assert [(pick.record.index, pick.place) for pick in picks] == [(1, 0), (2, 0), (3, 0)]
    assert [pick.reason for pick in picks] == [
        "ours loses most against linear: by 5.00 dB PSNR",
        "ours gains most over linear: 4.50 dB PSNR",
        "ours has its worst PSNR: 18.00 dB",
    ]


def test_loss_and_gain_are_honest_words_where_one_always_wins() -> None:
    results = results_of({"ours": {"a": [[0.3], [0.2]]}, "linear": {"a": [[0.2], [0.15]]}}, metric=METRICS[1])
    results = replaced(results, systems=(replace(results.systems[0], kind="model"), results.systems[1]))
    reasons = [pick.reason for pick in windows.pick_windows(ReportContext(results), 1)]
    assert reasons == [
        "ours loses most against linear: by 0.100 LPIPS; ours has its worst LPIPS: 0.300",
        "ours loses least against linear (it gains nowhere): by 0.050 LPIPS",
    ]


def test_pictures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MadeUpPictures()
    page, _ = page_of(tmp_path, sample_results(), source)
    pictured = [article for article in page.all("article") if article.all("img")]
    assert len(pictured) == len(page.all("article")) == source.asked > 2
    monkeypatch.setattr(windows, "MOST_PICTURE_BYTES", 20_000)
    page, text = page_of(tmp_path, sample_results(), MadeUpPictures())
    assert len([article for article in page.all("article") if article.all("img")]) < len(pictured)
    assert "pictures are left out to limit the size of the report" in text


def test_error_map_has_a_stated_scale() -> None:
    truth = np.zeros((2, 4, 3), np.uint8)
    frame = truth.copy()
    frame[0, 1] = ERROR_TOP
    frame[0, 2] = 255
    frame[0, 3] = (ERROR_TOP // 2, 0, ERROR_TOP)  # the mean of channels
    colours = error_colours()
    assert colours.shape == (256, 3)
    shown = error_map(frame, truth)
    np.testing.assert_array_equal(shown[0], colours[[0, 255, 255, 128]])
    np.testing.assert_array_equal(shown[1], colours[[0, 0, 0, 0]])
    lightness = colours.astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) >= 0).all()  # readable without colours


def test_slice_is_one_row_over_time() -> None:
    truth = np.zeros((7, 8, 10, 3), np.uint8)
    for time in range(7):
        truth[time, 5, time] = 255
    shown = slice_through_time(truth, 5)
    stripe = len(shown) // 7
    assert shown.shape == (7 * stripe, 10, 3)
    np.testing.assert_array_equal(shown[::stripe], truth[:, 5])


def test_detail_is_where_systems_err_most() -> None:
    truth = np.full((200, 300, 3), 90, np.uint8)
    frame = truth.copy()
    frame[150:160, 280:290] = 0
    left, top, right, bottom = telling_box([frame, truth], truth)
    assert (right - left, bottom - top) == (75, 50) and left <= 280 < 290 <= right and top <= 150 < 160 <= bottom
    part = cut_out(frame, (280, 150, 290, 160))
    assert part.shape == (440, 440, 3) and (part == 0).all()
    assert telling_box([truth[:20, :30]], truth[:20, :30]) == (0, 0, 30, 20)
    np.testing.assert_array_equal(truth, 90)
    assert (with_box(truth, (1, 2, 30, 40)) != 90).any() and (truth == 90).all()


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        write_report(tmp_path / "missing" / "report.html", sample_results())
