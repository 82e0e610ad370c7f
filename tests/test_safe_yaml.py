"""YAML from strangers: plain values as before, and every kind of harm refused in one line, in bounded time and memory."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi import safe_yaml
from evfi.errors import InputError
from evfi.plain_json import MAX_DEPTH
from evfi.safe_yaml import MAX_VALUES, parse_yaml, read_yaml

PLAIN = [
    ("", None),
    ("~", None),
    ("a: null\nb: true\nc: False\nd: ''", {"a": None, "b": True, "c": False, "d": ""}),
    ("[1, -2, +3, 0x1F, 0o17, 007]", [1, -2, 3, 31, 15, 7]),
    ("[1., .5, -1.5e3, 1e-05, 2E+2]", [1.0, 0.5, -1500.0, 1e-5, 200.0]),
    ("[yes, no, 2001-01-01, 1:30, 1_000, =, 1e, \"2\"]", ["yes", "no", "2001-01-01", "1:30", "1_000", "=", "1e", "2"]),
    ("1: a\ntrue: b\n~: c", {"1": "a", "true": "b", "~": "c"}),
    ("- a\n-\n  b: 1\n  c:\n  - 2", ["a", {"b": 1, "c": [2]}]),
    ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ("[!!str 1, !!int '2', !!float 3, !!bool 'true', !!null '', ! 4]", ["1", 2, 3.0, True, None, "4"]),
    ("!!map {a: !!seq [1]}", {"a": [1]}),
    ("a: &x [1, 2]\nb: *x\nc: &y text\n*y : d", {"a": [1, 2], "b": [1, 2], "c": "text", "text": "d"}),
    ("a: &a [1]\nb: &a [2]\nc: *a", {"a": [1], "b": [2], "c": [2]}),
    ("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}}),
    ("<<: [{x: 1}, {x: 2, y: 2}]\nz: 3", {"x": 1, "y": 2, "z": 3}),
    ("'<<': 1", {"<<": 1}),
    ("\ufeffa: 1", {"a": 1}),
    ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
    ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PLAIN, ids=range(len(PLAIN)))
def test_plain_values(text: str, expected: Any) -> None:
    found = parse_yaml(text)
    if not text.startswith("[["):
        assert found == expected
        assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)  # 1 is not 1.0 and not True


def test_numbers_that_are_not_finite() -> None:
    below, above, none = parse_yaml("[-.inf, .Inf, .NaN]")
    assert (below, above) == (-math.inf, math.inf)
    assert math.isnan(none)


def test_a_matrix_of_opencv() -> None:
    text = "%YAML:1.0\n---\nH: !!opencv-matrix\n   rows: 2\n   cols: 1\n   dt: d\n   data: [ 1., -2.5e-01 ]\n"
    expected = {"H": {"rows": 2, "cols": 1, "dt": "d", "data": [1.0, -0.25]}}
    assert parse_yaml(text) == expected
    assert parse_yaml(text.replace("---\n", "")) == expected
    assert parse_yaml(text.replace("\n", "\r\n")) == expected


def powers(first: str, repeated: str, levels: int) -> str:
    """A few lines, each of which stands for ten times the one before."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {repeated.format(', '.join([f'*a{level - 1}'] * 10))}")
    return "\n".join(lines)


HARM = {
    "brackets": ("a: " + "[" * 50_000, "line 1: values are nested more than 64 deep"),
    "braces": ("{a: " * 5_000, "nested more than 64 deep"),
    "dashes": ("- " * 50_000, "nested more than 64 deep"),
    "indents": ("\n".join(f"{' ' * depth}a:" for depth in range(200)), "nested more than 64 deep"),
    "complex keys": ("? " * 50_000, "a key must be a string"),
    "aliases": (powers("[1, 1]", "[{}]", 12), f"more than {MAX_VALUES} values, counting what aliases stand for"),
    "merge keys": (powers("{k: 0, l: 1}", "{{<<: [{}]}}", 12), f"more than {MAX_VALUES} values"),
    "aliases of aliases": (powers("x", "[{}]", 12), f"more than {MAX_VALUES} values"),
    "itself": ("&a [*a]", "line 1: the alias *a refers to no value that is complete before it"),
    "itself again": ("- &a [1]\n- &a [*a]", "line 2: the alias *a refers to no value"),
    "itself merged": ("a: &a {<<: *a}", "the alias *a refers to no value"),
    "unknown alias": ("a: *b", "the alias *b refers to no value"),
    "merged numbers": ("<<: 1", "line 1: << must merge mappings"),
    "merged texts": ("a: [1]\nb: {<<: [x]}", "line 2: << must merge mappings"),
    "a key twice": ("a: 1\nb: 2\na: 3", "duplicate key 'a'"),
    "a list as key": ("[1]: 2", "a key must be a string"),
    "a mapping as key": ("? {a: 1}\n: 2", "a key must be a string"),
    "an alias as key": ("a: &a 1\n*a : 2", "a key must be a string"),
    "python": (
        "!!python/object/apply:os.getcwd []",
        "the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd' does not name a",
    ),
    "python name": ("a: !!python/name:os.system ''", "does not name a plain type"),
    "python in a key": ("!!python/name:os.system a: 1", "does not name a plain type"),
    "own tag": ("a: !thing {b: 1}", "the tag '!thing' does not name a plain type"),
    "renamed tag": ("%TAG !! tag:evil.org,2000:\n---\n!!str a", "does not name a plain type"),
    "binary": ("a: !!binary aGFsbG8=", "does not name a plain type"),
    "set": ("!!set {a, b}", "does not name a plain type"),
    "ordered map": ("!!omap [a: 1]", "does not name a plain type"),
    "timestamp": ("!!timestamp 2001-01-01", "does not name a plain type"),
    "a matrix that is a list": ("!!opencv-matrix [1]", "does not name a plain type"),
    "a list that is a mapping": ("!!seq {a: 1}", "does not name a plain type"),
    "no number": ("!!int abc", "'abc' does not match its tag"),
    "true is no number": ("!!float true", "'true' does not match its tag"),
    "many digits": ("9" * 50_000, "a number has 50000 characters, at most 64 are allowed"),
    "many decimals": ("0." + "9" * 50_000, "at most 64 are allowed"),
    "many hexadecimal digits": ("0x" + "f" * 50_000, "at most 64 are allowed"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: there is a second document"),
    "unclosed": ("a: [1", "line [12]: did not find|line 1: expected"),
    "unknown directive": ("%YAML:1.0 x\n---\na: 1", "line 1"),
    "version 2": ("%YAML 2.0\n---\na: 1", "line 1"),
    "tab": ("a:\n\t- 1", "line 2"),
    "control character": ("a: \x07", "control characters are not allowed|special characters are not allowed"),
    "null byte": ("a: \x00b", "allowed"),
    "half a letter": ("a: \ud800", "surrogates not allowed|special characters are not allowed"),
    "unquoted colons": ("a: b: c", "line 1"),
}


@pytest.mark.parametrize("has_library_in_c", [True, False])
@pytest.mark.parametrize("name", HARM)
def test_harm_is_refused_in_one_line(name: str, has_library_in_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_library_in_c:
        monkeypatch.delattr(yaml, "CSafeLoader")
    text, message = HARM[name]
    with pytest.raises(ValueError, match=message.replace("*", r"\*")) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_yaml, "MAX_VALUES", 7)
    assert parse_yaml("[1, 1, 1, {a: 1}]") == [1, 1, 1, {"a": 1}]
    assert parse_yaml("[&a [1], *a, *a]") == [[1], [1], [1]]
    for text in ("[1, 1, 1, {a: 1}, 1]", "[&a [1], *a, *a, 1]", "[&a [1], *a, *a, *a]"):
        with pytest.raises(ValueError, match="more than 7 values"):
            parse_yaml(text)


def test_long_sexagesimal_numbers_are_text() -> None:
    """YAML 1.1 reads 1:30 to base 60, which gives infinities, errors of overflow, and hours of work with long ones."""
    assert parse_yaml("1" + ":59" * 10_000 + ".5") == "1" + ":59" * 10_000 + ".5"


@pytest.mark.parametrize("name", ["aliases", "merge keys", "aliases of aliases"])
def test_what_is_refused_takes_no_memory(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than"):
        parse_yaml(HARM[name][0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path, 100, "a calibration", "copy it again") == {"a": 1}
    for content, message in (
        (b"a: [", r"c.yaml: expected a calibration in YAML, but line [12]: .*; copy it again"),
        (b"a: \xff", "UTF-8"),
        (b" " * 101, "found more"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_yaml(path, 100, "a calibration", "copy it again")
    with pytest.raises(InputError, match="there is no such file"):
        read_yaml(tmp_path / "none.yaml", 100, "a calibration", "copy it again")


scalars = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(max_size=20)
plain_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@given(plain_values)
@settings(deadline=None, max_examples=50)
def test_what_the_library_writes_is_read(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=False)) == value


@settings(deadline=None)
@given(st.text(alphabet="[]{}-?:,&*!|>'\"%#@` \n\tab1<.~", max_size=60))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        assert str(error)
