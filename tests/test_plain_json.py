"""Every JSON file is read by one reader, within limits; `test_strict_json` tests what it refuses."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import evfi
from evfi.files import read_mark, remove_leftovers
from evfi.plain_json import loads, read_json
from hostile_json import HOSTILE_JSON

VALID = {"list", "number", "null"}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_harm_in_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(HOSTILE_JSON[name])
    if name in VALID:
        assert read_json(file, 2**20) == read_mark(file, 2**20) == loads(HOSTILE_JSON[name])
        return
    with pytest.raises(ValueError, match=r"."):
        read_json(file, 2**20)
    assert read_mark(file, 2**20) is None


def test_size_and_kind_of_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[1]" + " " * 1021)
    assert read_json(file, 1024) == [1]
    with pytest.raises(ValueError, match="it is larger than 0 KiB"):
        read_json(file, 1023)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for a writer
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            read_json(path, 1024)
        assert read_mark(path, 1024) is None
    with pytest.raises(OSError, match="No such file"):
        read_json(tmp_path / "none", 1024)


def test_not_a_number_where_that_is_allowed() -> None:
    assert str(loads('{"loss": NaN}', finite=False)) == "{'loss': nan}"


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_marks_of_private_folders(tmp_path: Path, name: str) -> None:
    mark = tmp_path / ".evfi-abcdefgh.part" / "evfi-temporary.json"
    mark.parent.mkdir()
    mark.write_bytes(HOSTILE_JSON[name][:4096])
    remove_leftovers(tmp_path, lambda _: True)
    assert mark.is_file()


def test_there_is_no_other_reader() -> None:
    package = Path(evfi.__file__).parent
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads")
        if not ast.unparse(node.args[0]).startswith("json.dumps(")  # of an object of our own
    ]
    assert [place for place in found if not place.startswith("plain_json.py:")] == []
