"""The same results from one process and from several."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from evfi.errors import InputError
from evfi.evaluation.workers import Work, run_work


@dataclass(frozen=True)
class Squares(Work[int, tuple[int, int]]):
    fail_at: int = -1

    def prepare(self) -> list[int]:
        return []

    def finish(self, state: list[int]) -> None:
        state.append(-1)

    def do(self, state: list[int], item: int) -> tuple[int, int]:
        if item == self.fail_at:
            raise InputError(f"item {item} is damaged")
        state.append(item)
        return item * item, os.getpid()


def test_one_and_several_processes_agree():
    alone = {item: result[0] for item, result in run_work(Squares(), range(6), 1)}
    together = dict(run_work(Squares(), range(6), 2))
    assert alone == {item: result[0] for item, result in together.items()} == {item: item * item for item in range(6)}
    assert os.getpid() not in {pid for _, pid in together.values()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller(workers: int):
    with pytest.raises(InputError, match="item 1 is damaged"):
        list(run_work(Squares(fail_at=1), range(4), workers))


@pytest.mark.parametrize("fail_at", [-1, 2])
def test_what_was_prepared_is_given_back(monkeypatch: pytest.MonkeyPatch, fail_at: int):
    state: list[int] = []
    monkeypatch.setattr(Squares, "prepare", lambda self: state)
    with suppress(InputError):
        list(run_work(Squares(fail_at), range(4), 1))
    assert state[-1] == -1


@dataclass(frozen=True)
class SlowBesideBroken(Work[str, None]):
    folder: Path

    def prepare(self) -> Path:
        return self.folder

    def do(self, state: Path, item: str) -> None:
        if item == "slow":
            (state / "begun").touch()
            time.sleep(1.0)
            (state / "finished").touch()
            return
        while not (state / "begun").exists():
            time.sleep(0.01)
        raise InputError("broken")


def test_no_process_works_on_after_an_error_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="broken"):
        list(run_work(SlowBesideBroken(tmp_path), ["slow", "broken"], 2))
    assert (tmp_path / "finished").exists()


def test_nothing_to_do():
    assert list(run_work(Squares(), [], 3)) == []
