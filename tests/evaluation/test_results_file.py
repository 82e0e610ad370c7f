from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results_samples import replaced, results_of, sample_results

import evfi.evaluation.results_file as results_file
from evfi.errors import ConfigError, InputError, OutputError
from evfi.evaluation.results import Score
from evfi.evaluation.results_file import read_results, write_results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


@pytest.fixture
def content(path: Path) -> dict[str, Any]:
    """Results as plain JSON, to be spoilt."""
    write_results(path, sample_results())
    return dict(json.loads(path.read_text(encoding="utf-8")))


def read_error(path: Path, content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_results(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read {path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message


def test_what_is_written_is_read_back(path: Path) -> None:
    write_results(path, sample_results())
    assert read_results(path) == sample_results()


def test_results_without_any_scores_are_read_back(path: Path) -> None:
    results = replaced(sample_results(), scores=(), timings=(), windows=(), sequences=(), systems=(), metrics=())
    write_results(path, results)
    assert read_results(path) == results


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
def test_every_finite_number_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    path = tmp_path_factory.mktemp("numbers") / "results.json"
    results = results_of({"a": {"s": [values]}}, skip=len(values))
    write_results(path, results)
    assert read_results(path) == results


def test_strange_names_are_read_back(path: Path) -> None:
    results = replaced(sample_results(), command='mül "ti"\n\\n \udc80', environment={"ü": [1, None, {"x": True}]})
    write_results(path, results)
    assert read_results(path) == results


def test_nan_is_written_as_null(path: Path) -> None:
    results = results_of({"a": {"s": [[1.5, math.nan, None]]}}, skip=3)
    write_results(path, results)
    assert "NaN" not in path.read_text()
    assert read_results(path).scores[0].values == (1.5, None, None)


def test_every_record_stands_on_a_line_of_its_own(path: Path) -> None:
    results = sample_results()
    write_results(path, results)
    lines = path.read_text().splitlines()
    assert lines[1:3] == ['"format": "evfi-evaluation",', '"format_version": 1,']
    assert sum(line.startswith('{"sequence": ') for line in lines) == sum(
        map(len, (results.windows, results.timings, results.scores))
    )


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    write_results(path, sample_results())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="what JSON can hold"):
        write_results(path, replaced(sample_results(), settings={"path": path}))
    with pytest.raises(ConfigError, match="what JSON can hold"):
        write_results(path, replaced(sample_results(), settings={"x": math.inf}))
    with pytest.raises(ConfigError, match=re.escape("scores[0].values: expected finite numbers")):
        write_results(path, results_of({"a": {"s": [[math.inf]]}}))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        write_results(tmp_path / "none" / "results.json", sample_results())


def test_missing_and_unfit_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_results(path)
    with pytest.raises(InputError, match="there is no such file"):
        read_results(path.parent)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="byte 0: expected UTF-8"):
        read_results(path)
    monkeypatch.setattr(results_file, "MAX_BYTES", 100)
    path.write_bytes(b" " * 101)
    with pytest.raises(InputError, match="expected at most 100 bytes"):
        read_results(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: no JSON"),
        ('{\n"format": ', "line 2, column 11: no JSON"),
        ("[]", 'expected an object with "format": "evfi-evaluation", found []'),
        ('{"format": "other"}', "found {'format': 'other'}"),
        ('{"format": "evfi-evaluation"}', "expected format_version 1, which this version of evfi reads, found None"),
        ('{"format": "evfi-evaluation", "format_version": 2}', "found 2"),
        ('{"format": "evfi-evaluation", "format_version": true}', "found True"),
        ('{"format": "evfi-evaluation", "format_version": 1}', "expected the keys command, "),
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("9" * 10_000, "digits"),
    ],
)
def test_other_files_are_refused(path: Path, text: str, message: str) -> None:
    assert message in read_error(path, text)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("created",), 5, "created: expected a text, found 5"),
        (("scores",), {}, "scores: expected a list, found {}"),
        (("scores", 3), [], "scores[3]: expected an object, found []"),
        (("scores", 3, "values"), ["1"], "scores[3].values[0]: expected a finite number, found '1'"),
        (("scores", 3, "values"), [True], "scores[3].values[0]: expected a finite number, found True"),
        (("scores", 3, "values"), [10**30], "scores[3].values[0]: expected a finite number"),
        (("scores", 3, "values"), [1.0, 2.0], "scores[3].values: expected one for each of 1 inserted frames, found 2"),
        (("scores", 3, "index"), 1.0, "scores[3].index: expected a whole number of 64 bits, found 1.0"),
        (("scores", 3, "index"), 99, "scores[3]: there is no window ('coffee', 1, 99), or it is dropped"),
        (("scores", 3, "system"), "nobody", "scores[3].system: there is no system 'nobody'"),
        (("scores", 3, "metric"), "nothing", "scores[3].metric: there is no metric 'nothing'"),
        (("scores", 3, "truth"), "other", "scores[3].truth: expected one of raw, vae, found 'other'"),
        (("scores", 3, "region"), "", "scores[3].region: expected printable text, found ''"),
        (("scores", 3, "extra"), 1, "scores[3]: expected the keys index, metric, "),
        (("sequences", 0, "size"), [64, 48, 3], "sequences[0].size: expected a list of 2, found [64, 48, 3]"),
        (("sequences", 0, "size"), [64, "48"], "sequences[0].size[1]: expected a whole number of 64 bits, found '48'"),
        (("sequences", 1, "name"), "coffee", "sequences[1].name: duplicate 'coffee'"),
        (("sequences", 1, "name"), "a\nb", "sequences[1].name: expected printable text"),
        (("sequences", 0, "simulated"), 3, "sequences[0].simulated: expected an object, found 3"),
        (("systems", 0, "kind"), "person", "systems[0].kind: expected one of model, baseline, frames, found 'person'"),
        (("metrics", 0, "higher_is_better"), 1, "metrics[0].higher_is_better: expected true or false, found 1"),
        (("windows", 0, "dropped"), 1, "windows[0].dropped: expected a text, found 1"),
        (("windows", 0, "sequence"), "cat", "windows[0].sequence: there is no sequence 'cat'"),
        (("windows", 0, "skip"), 0, "windows[0]: skip must be at least 1"),
        (("windows", 0, "end_frame"), 9, "windows[0]: expected start_frame < end_frame among 9 frames"),
        (("windows", 0, "times_us"), [0, 0, 1], "windows[0].times_us: expected at least 3 that increase"),
        (("windows", 1, "index"), 0, "windows[1]: duplicate ('coffee', 1, 0)"),
        (("timings", 0, "system"), "nobody", "timings[0].system: there is no system 'nobody'"),
        (("timings", 0, "seconds"), -1, "timings[0].seconds: expected 0 or more, found -1.0"),
        (("timings", 0, "index"), 77, "timings[0]: there is no window ('coffee', 1, 77)"),
        (("missing",), {"a": 1}, "missing: expected a text, found 1"),
    ],
)
def test_spoilt_results_are_refused_in_one_line(
    path: Path, content: dict[str, Any], where: tuple[str | int, ...], value: Any, message: str
) -> None:
    place: Any = content
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    assert message in read_error(path, content)


def test_numbers_beyond_floats_are_refused_in_settings(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content).replace('"limit": null', '"limit": [1e999]')
    assert "1e999 is too large for a number" in read_error(path, text)


def test_a_score_of_a_dropped_window_is_refused(path: Path) -> None:
    results = sample_results()
    score = Score("dog", 1, 1, "linear", "raw", "psnr", "all", (20.0,))
    with pytest.raises(ConfigError, match="or it is dropped"):
        write_results(path, replaced(results, scores=(*results.scores, score)))
    with pytest.raises(ConfigError, match="duplicate"):
        write_results(path, replaced(results, scores=(*results.scores, results.scores[0])))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_give_an_error_or_results(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damaged") / "results.json"
    write_results(path, results_of({"a": {"s": [[1.0], [2.0]]}}))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        read_results(path)
    except InputError as error:
        assert "\n" not in str(error)
