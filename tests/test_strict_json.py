"""JSON within limits, and kinds of values: what they take, what they refuse, and in which words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi import kinds
from evfi.errors import ConfigError, InputError
from evfi.plain_json import MAX_DEPTH, loads
from evfi.strict_json import Keys, parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 64 deep"),
        ('{"a":' * 10_000, "nested more than 64 deep"),
        ('{"]": [' * 40, "nested more than 64 deep"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "duplicate key 'c'"),
        ("1e400", "1e400 is too large for a number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("9" * 10_000, "digits"),
        ('"' * 10_001, "Extra data"),
        ("", "Expecting value"),
    ],
)
def test_harm_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads(text)
    with pytest.raises(InputError, match=rf"a\.json: expected a thing in JSON, but .*{message}"):
        parse_json(text, "a.json", "thing", InputError)


def test_brackets_in_texts_do_not_count() -> None:
    text = json.dumps({"a": "[{" * 1000, 'b"\\[': "\\" * 100 + '"' + "[" * 100})
    assert loads(text) == json.loads(text)
    assert loads(b"\xef\xbb\xbf[1]") == [1]
    assert loads("[" * MAX_DEPTH + "]" * MAX_DEPTH) == json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("piece", ['"', '\\"', '"\\', "[]", '{"":0},', "\\u0000", '"a":'])
def test_time_grows_with_the_size_alone(piece: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"."):
        loads("[" + piece * (2**18 // len(piece)))
    assert time.process_time() - start < 2  # about 0.02 s; reading back and forth would take minutes


def test_many_keys_and_one_twice_is_quick() -> None:
    text = "{" + ",".join(f'"{number}":0' for number in range(100_000)) + ',"99999":0}'
    start = time.process_time()
    with pytest.raises(ValueError, match="duplicate key '99999'"):
        loads(text)
    assert time.process_time() - start < 2


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@settings(deadline=None)
@given(plain, st.booleans())
def test_what_is_written_is_read(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only)) == value


ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "a",
    "\ud800",
    [],
    {},
    [[]],
]


@pytest.mark.parametrize(
    ("kind", "says", "fitting"),
    [
        (kinds.whole(0, 5), "a whole number from 0 to 5", [0, 1]),
        (kinds.whole(1, 1), "the whole number 1", [1]),
        (kinds.number(-2, 2), "a number from -2 to 2", [0, 1, -1, 1.5]),
        (kinds.FLAG, "true or false", [True, False]),
        (kinds.NOTHING, "null", [None]),
        (kinds.word("a", "b"), "one of a, b", ["a"]),
        (kinds.text(3), "a non-empty string of at most 3 characters", ["a"]),
        (kinds.text(3, empty=True), "a string of at most 3 characters", ["", " ", "a"]),
        (kinds.listed(kinds.FLAG, 0, 2), "a list of length 0 to 2, each true or false", [[]]),
        (kinds.listed(kinds.listed(kinds.FLAG, 0, 0), 1, 1), "a list of length 1, each a list of length 0", [[[]]]),
        (kinds.table(kinds.FLAG, "flags", 2), "an object of at most 2 flags, each true or false", [{}]),
        (kinds.either(kinds.NOTHING, kinds.word("a")), "null or one of a", [None, "a"]),
        (kinds.ANYTHING, "anything", ODD),
    ],
)
def test_kinds(kind: kinds.Kind, says: str, fitting: list[Any]) -> None:
    assert kind.says.startswith(says)
    assert [repr(value) for value in ODD if kind.fits(value)] == [repr(value) for value in fitting]


def test_declared_keys() -> None:
    declared = {"a": kinds.whole(0, 5), "b": kinds.FLAG}
    keys = Keys({"a": 1, "c": 2}, "x.json", "the thing", InputError)
    assert keys.declared(declared, ("a",)) == {"a": 1}
    with pytest.raises(InputError, match=r'x\.json: unknown key "c" in the thing; expected one of a, b'):
        keys.finish()
    with pytest.raises(InputError, match='the thing lacks "b"; add it'):
        keys.declared(declared, ("b",))
    with pytest.raises(ConfigError, match='"a" of the thing must be a whole number from 0 to 5, found "1"'):
        Keys({"a": "1"}, "x.json", "the thing").declared(declared)
