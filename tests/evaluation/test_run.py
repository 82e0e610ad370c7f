"""Whole evaluations on small recordings: results, resuming, several processes, wrong use."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples_on_disk import moving_square, write_recording

from evfi.errors import ConfigError, InputError, OutputError, RecordingError
from evfi.evaluation import generation, outputs, scoring
from evfi.evaluation import run as run_module
from evfi.evaluation.metrics import psnr
from evfi.evaluation.plan import OpenRecordings
from evfi.evaluation.results import EvaluationResults
from evfi.evaluation.results_file import read_results
from evfi.evaluation.run import EvaluationConfig, EvaluationInputs, evaluate
from evfi.evaluation.systems import SystemRequest
from evfi.pipeline.blending import blend_linearly
from hostile_json import HOSTILE_JSON

HOLD, LINEAR = SystemRequest("hold", "baseline", "hold"), SystemRequest("linear", "baseline", "linear")
CONFIG = EvaluationConfig(skips=(1, 3), metrics=("psnr_rgb",))


def values(results: EvaluationResults, **wanted: Any) -> list[float | None]:
    """Values of all scores with these attributes, one list."""
    found = [score for score in results.scores if all(getattr(score, key) == value for key, value in wanted.items())]
    return [value for score in found for value in score.values]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "square")


def test_numbers_are_those_computed_by_hand(recording: Path, tmp_path: Path):
    results = evaluate(EvaluationInputs((recording,), (HOLD, LINEAR)), tmp_path / "out", CONFIG)
    assert [(window.skip, window.start_frame, window.end_frame) for window in results.windows] == [
        (1, 0, 2), (1, 2, 4), (1, 4, 6), (1, 6, 8), (3, 0, 4), (3, 4, 8)]  # fmt: skip
    truth = moving_square()
    times = np.array(results.windows[-1].times_us)
    blended = blend_linearly(truth[4], truth[8], times)
    expected = psnr(blended[1:-1], truth[5:8])
    found = values(results, skip=3, index=1, system="linear", metric="psnr_rgb", region="all")
    np.testing.assert_allclose(found, expected)
    held = psnr(np.repeat(truth[4:5], 3, 0), truth[5:8])
    np.testing.assert_allclose(values(results, skip=3, index=1, system="hold", metric="psnr_rgb", region="all"), held)


def test_what_is_written(recording: Path, tmp_path: Path):
    results = evaluate(
        EvaluationInputs((recording,), (HOLD, LINEAR), command="evfi evaluate …"), tmp_path / "out", CONFIG
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "evaluation.json", "frames", "outputs.json", "report.html", "results.csv", "results.json", "scores"]  # fmt: skip
    assert read_results(tmp_path / "out" / "results.json") == results
    assert results.command == "evfi evaluate …"
    assert results.protocol["name"] == "raw"
    assert results.environment["libraries"]["torch"]
    assert len(results.timings) == 12
    assert results.sequences[0].fingerprint


def test_nothing_is_done_twice(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inputs = EvaluationInputs((recording,), (LINEAR,))
    first = evaluate(inputs, tmp_path / "out", CONFIG)
    made: list[Any] = []
    scored: list[Any] = []
    make, score = generation.FrameMaker.perform, scoring.Scorer.perform
    monkeypatch.setattr(
        generation.FrameMaker, "perform", lambda self, item, *more: (made.append(item), make(self, item, *more))[1]
    )
    monkeypatch.setattr(
        scoring.Scorer, "perform", lambda self, item, *more: (scored.append(item), score(self, item, *more))[1]
    )
    again = evaluate(inputs, tmp_path / "out", CONFIG)
    assert (made, scored) == ([], [])
    assert again.scores == first.scores
    more = evaluate(inputs, tmp_path / "out", dataclasses.replace(CONFIG, metrics=("psnr_rgb", "psnr_y")))
    assert (made, len(scored)) == ([], 6)
    assert all(item.missing == (("raw", "psnr_y"),) for item in scored)
    assert [score for score in more.scores if score.metric == "psnr_rgb"] == list(first.scores)
    with_hold = evaluate(dataclasses.replace(inputs, systems=(HOLD, LINEAR)), tmp_path / "out", CONFIG)
    assert len(made) == 6
    assert [score for score in with_hold.scores if score.system == "linear"] == list(first.scores)


def test_a_run_that_broke_off_goes_on(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inputs = EvaluationInputs((recording,), (LINEAR,))
    whole = evaluate(inputs, tmp_path / "whole", CONFIG)
    make = generation.FrameMaker.perform
    calls: list[int] = []

    def fail_at_third(self: Any, item: Any, *more: Any) -> None:
        calls.append(item.index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        make(self, item, *more)

    monkeypatch.setattr(generation.FrameMaker, "perform", fail_at_third)
    with pytest.raises(KeyboardInterrupt, match="run the same command to resume"):
        evaluate(inputs, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out" / "results.json").exists()
    resumed = evaluate(inputs, tmp_path / "out", CONFIG)
    assert len(calls) == 3 + 4
    assert resumed.scores == whole.scores


@pytest.mark.parametrize(("maker", "kept"), [("FrameMaker", "frames"), ("Scorer", "scores")])
def test_data_that_changes_during_the_run(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str, kept: str
):
    """Nothing that was made from a changed picture is kept."""
    inputs, picture = EvaluationInputs((recording,), (LINEAR,)), recording / "frames" / "000005.png"
    whole, original = evaluate(inputs, tmp_path / "whole", CONFIG), picture.read_bytes()
    kind = getattr(generation if maker == "FrameMaker" else scoring, maker)
    load, calls = OpenRecordings.__getitem__, list[str]()

    def changing(self: OpenRecordings, name: str) -> Any:
        found = load(self, name)
        calls.append(name)
        if len(calls) == 3:
            shutil.copy(recording / "frames" / "000001.png", picture)
        return found

    def perform(self: Any, item: Any, *more: Any, original: Any = kind.perform) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(OpenRecordings, "__getitem__", changing)
            original(self, item, *more)

    monkeypatch.setattr(kind, "perform", perform)
    with pytest.raises(
        InputError, match=r"000005\.png changed while it was being read; nothing made from it since was kept"
    ):
        evaluate(inputs, tmp_path / "out", CONFIG)
    monkeypatch.undo()
    assert (tmp_path / "out" / kept).is_dir()
    picture.write_bytes(original)
    assert evaluate(inputs, tmp_path / "out", CONFIG).scores == whole.scores


@pytest.mark.parametrize("workers", [None, 2])
def test_data_that_changed_before_it_is_opened_again(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None
):
    def change_and_make(*given: Any) -> None:
        shutil.copy(recording / "frames" / "000001.png", recording / "frames" / "000005.png")
        make_missing(*given)

    make_missing = run_module.make_missing
    monkeypatch.setattr(run_module, "make_missing", change_and_make)
    with pytest.raises(
        InputError, match=r"square changed while it was being read.*to evaluate the recording as it is now"
    ):
        evaluate(
            EvaluationInputs((recording,), (LINEAR,)), tmp_path / "out", dataclasses.replace(CONFIG, workers=workers)
        )
    assert not list((tmp_path / "out").rglob("*.png"))


def test_several_workers_one_of_which_is_killed_give_the_same(
    recording: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    inputs, config = EvaluationInputs((recording,), (LINEAR,)), dataclasses.replace(CONFIG, skips=(1,))
    alone = evaluate(inputs, tmp_path / "alone", config)
    killed: list[int] = []

    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(children[0].pid, signal.SIGKILL)
        killed.append(children[0].pid)

    threading.Thread(target=kill_one, daemon=True).start()
    together = evaluate(dataclasses.replace(inputs, devices="cpu,cpu"), tmp_path / "together", config)
    assert len(killed) == 1
    assert "killed by SIGKILL" in caplog.text
    assert len(together.scores) == 12
    assert together.scores == alone.scores
    assert together.timings == ()
    assert not list((tmp_path / "together").rglob("*.part"))


def test_an_error_in_another_process_reaches_the_caller(recording: Path, tmp_path: Path):
    inputs = EvaluationInputs((recording,), (LINEAR,))
    config = dataclasses.replace(CONFIG, skips=(1,))
    evaluate(inputs, tmp_path / "out", config)
    (frame, *_) = sorted((tmp_path / "out" / "frames").rglob("*.png"))
    frame.write_bytes(b"damaged")
    with pytest.raises(InputError, match=frame.name):
        evaluate(inputs, tmp_path / "out", dataclasses.replace(config, metrics=("psnr_y",), workers=2))
    assert not multiprocessing.active_children()


def test_changed_data_is_noticed(tmp_path: Path):
    inputs = EvaluationInputs((write_recording(tmp_path / "square"),), (LINEAR,))
    first = evaluate(inputs, tmp_path / "out", CONFIG)
    (tmp_path / "square" / "frames" / "000001.png").write_bytes(
        (tmp_path / "square" / "frames" / "000002.png").read_bytes()
    )
    second = evaluate(inputs, tmp_path / "out", CONFIG)
    assert second.sequences[0].fingerprint != first.sequences[0].fingerprint
    assert second.scores != first.scores


def test_a_protocol_with_another_crop_gets_its_own_scores(recording: Path, tmp_path: Path):
    protocol = json.loads((Path(scoring.__file__).parent / "protocols" / "raw.json").read_text())
    (tmp_path / "inner.json").write_text(
        json.dumps(protocol | {"name": "inner", "crop": {"multiple": 8, "fewer": 3}, "skips": [1]})
    )
    inner = dataclasses.replace(CONFIG, protocol=str(tmp_path / "inner.json"))
    inputs = EvaluationInputs((recording,), (LINEAR,))
    alone = evaluate(inputs, tmp_path / "alone", inner)
    whole = evaluate(inputs, tmp_path / "out", CONFIG)
    after = evaluate(inputs, tmp_path / "out", inner)
    assert after.scores == alone.scores != whole.scores
    assert evaluate(inputs, tmp_path / "out", CONFIG).scores == whole.scores


def test_damaged_scores_are_computed_again(recording: Path, tmp_path: Path):
    inputs = EvaluationInputs((recording,), (LINEAR,))
    config = dataclasses.replace(CONFIG, skips=(1,))
    first = evaluate(inputs, tmp_path / "out", config)
    files = sorted((tmp_path / "out" / "scores").rglob("*.json"))
    too_few = json.loads(files[0].read_text())
    too_few["raw"]["metrics"]["psnr_rgb"]["regions"]["all"] = []
    for file, damage in zip(files, (json.dumps(too_few), "[]", '{"raw": []}', "3"), strict=True):
        file.write_text(damage)
    assert evaluate(inputs, tmp_path / "out", config).scores == first.scores


def test_fewer_windows(recording: Path, tmp_path: Path):
    results = evaluate(
        EvaluationInputs((recording,), (LINEAR,)), tmp_path / "out", dataclasses.replace(CONFIG, windows=1)
    )
    assert [(window.skip, window.index) for window in results.windows] == [(1, 2), (3, 1)]


def test_dropped_windows_are_recorded_and_not_made(recording: Path, tmp_path: Path):
    protocol = json.loads((Path(scoring.__file__).parent / "protocols" / "raw.json").read_text())
    protocol.update(name="strict", drop={"empty": True, "one_polarity": True, "max_ratio": 1.05, "min_ratio": 0.5})
    (tmp_path / "strict.json").write_text(json.dumps(protocol))
    config = dataclasses.replace(CONFIG, protocol=str(tmp_path / "strict.json"), skips=(1,))
    results = evaluate(EvaluationInputs((recording,), (LINEAR,)), tmp_path / "out", config)
    dropped = [window.index for window in results.windows if window.dropped]
    assert 0 < len(dropped) < 4
    assert not {score.index for score in results.scores} & set(dropped)


def test_too_short_sequences_are_named_and_left_out(recording: Path, tmp_path: Path):
    short = write_recording(tmp_path / "short", number=3)
    results = evaluate(EvaluationInputs((recording, short), (LINEAR,)), tmp_path / "out", CONFIG)
    assert len(results.notes) == 1
    assert results.notes[0].startswith("short, skip 3: ")
    with pytest.raises(RecordingError, match="no window is left to evaluate"):
        evaluate(EvaluationInputs((short,), (LINEAR,)), tmp_path / "none", dataclasses.replace(CONFIG, skips=(7,)))


def test_a_frame_that_is_gone_is_made_again(recording: Path, tmp_path: Path):
    inputs = EvaluationInputs((recording,), (LINEAR,))
    first = evaluate(inputs, tmp_path / "out", CONFIG)
    gone = next((tmp_path / "out" / "frames").rglob("*.png"))
    gone.unlink()
    assert evaluate(inputs, tmp_path / "out", CONFIG).scores == first.scores
    assert gone.is_file()


class TestNothingElseIsReplaced:
    """What is in the place of results and is not as it was written is moved aside."""

    CONFIG = dataclasses.replace(CONFIG, skips=(3,))

    def again(self, recording: Path, out: Path) -> EvaluationResults:
        return evaluate(EvaluationInputs((recording,), (LINEAR,)), out, self.CONFIG)

    def left(self, out: Path) -> list[str]:
        return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.unusable*"))

    def test_own_results_are(self, recording: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        for _ in range(3):
            self.again(recording, tmp_path / "out")
        assert self.left(tmp_path / "out") == []
        assert not caplog.records

    @pytest.mark.parametrize("name", ["results.json", "results.csv", "report.html", "outputs.json"])
    def test_changed_ones_are_not(self, recording: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str):
        out = tmp_path / "out"
        self.again(recording, out)
        (out / name).write_text("mine")
        self.again(recording, out)
        assert (out / f"{name}.unusable").read_text() == "mine"
        assert (out / name).read_text() != "mine"
        assert f"moved aside to {name}.unusable" in caplog.text

    @pytest.mark.parametrize("kind", ["folder", "link", "file"])
    def test_others_are_not(self, recording: Path, tmp_path: Path, kind: str):
        out, mine = tmp_path / "out", tmp_path / "mine"
        self.again(recording, out)
        (out / "report.html").unlink()
        mine.write_text("mine")
        if kind == "folder":
            (out / "report.html").mkdir()
        elif kind == "link":
            (out / "report.html").symlink_to(mine)
        else:
            mine.rename(out / "report.html")
            (out / "outputs.json").unlink()
        self.again(recording, out)
        assert "report.html.unusable" in self.left(out)
        assert "<html" in (out / "report.html").read_text()
        assert kind != "link" or mine.read_text() == "mine"

    def test_a_run_that_was_killed_before_results_got_their_names(self, recording: Path, tmp_path: Path):
        out = tmp_path / "out"
        self.again(recording, out)
        with pytest.raises(KeyboardInterrupt):
            outputs.write_output(out / "report.html", lambda path: (path.write_text("new"), _interrupt())[0])
        self.again(recording, out)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", _only_notes(Path.replace))
            with pytest.raises(KeyboardInterrupt):
                outputs.write_output(out / "report.html", lambda path: path.write_text("new"))
        self.again(recording, out)
        assert self.left(out) == []

    def test_files_among_the_scores(self, recording: Path, tmp_path: Path):
        out = tmp_path / "out"
        self.again(recording, out)
        file = next((out / "scores").rglob("*.json"))
        file.write_text("mine")
        self.again(recording, out)
        assert file.with_name(f"{file.name}.unusable").read_text() == "mine"

    def test_a_file_in_a_folder_of_frames(self, recording: Path, tmp_path: Path):
        out = tmp_path / "out"
        self.again(recording, out)
        frame = next((out / "frames").rglob("*.png"))
        frame.unlink()
        (frame.parent / "notes.txt").write_text("mine")
        self.again(recording, out)
        aside = frame.parent.with_name(f"{frame.parent.name}.unusable")
        assert (aside / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("name", ["frames", "scores", "truth", "simulated"])
    def test_folders_behind_links(self, recording: Path, tmp_path: Path, name: str):
        out = tmp_path / "out"
        self.again(recording, out)
        if (out / name).is_dir():
            (out / name).rename(tmp_path / "elsewhere")
        (out / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OutputError, match=f"its {name}/ is a link, which may lead to another evaluation"):
            self.again(recording, out)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _only_notes(replace: Any) -> Any:
    def interrupted(path: Path, target: Path) -> Path:
        if target.name == "report.html":
            raise KeyboardInterrupt
        return replace(path, target)

    return interrupted


def test_wrong_use_is_told(recording: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="expected a model, a baseline or a folder of frames"):
        evaluate(EvaluationInputs((recording,), ()), tmp_path / "out", CONFIG)
    with pytest.raises(ConfigError, match="linear more than once"):
        evaluate(EvaluationInputs((recording,), (LINEAR, LINEAR)), tmp_path / "out", CONFIG)
    with pytest.raises(ConfigError, match="no metric is named"):
        evaluate(EvaluationInputs((recording,), (LINEAR,)), tmp_path / "out", EvaluationConfig(metrics=("psrn",)))
    with pytest.raises(InputError, match="no such file"):
        evaluate(EvaluationInputs((tmp_path / "no",), (LINEAR,)), tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("…")
    with pytest.raises(OutputError, match="does not belong to an earlier evaluation"):
        evaluate(EvaluationInputs((recording,), (LINEAR,)), tmp_path / "full", CONFIG)
    with pytest.raises(ConfigError, match="name a model too"):
        evaluate(EvaluationInputs((recording,), (LINEAR,)), tmp_path / "vae", EvaluationConfig("vdm-evfi", (1,)))
    for output in (recording, recording / "out"):
        with pytest.raises(ConfigError, match="is inside the data"):
            evaluate(EvaluationInputs((recording,), (LINEAR,)), output, CONFIG)
    assert not (tmp_path / "vae").exists()


@pytest.mark.parametrize(
    "settings", [{"skips": (0,)}, {"skips": (1, 3, 1)}, {"windows": 0}, {"workers": 0}, {"seed": -1}]
)
def test_settings_are_checked(settings: dict[str, Any]):
    with pytest.raises(ConfigError):
        EvaluationConfig(**settings)


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_a_hostile_mark_makes_no_evaluation(recording: Path, tmp_path: Path, name: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_bytes(HOSTILE_JSON[name])
    with pytest.raises(OutputError, match="does not belong to an earlier evaluation"):
        evaluate(EvaluationInputs((recording,), (HOLD,)), tmp_path / "out", CONFIG)


def test_hostile_values_are_computed_again(recording: Path, tmp_path: Path):
    inputs = EvaluationInputs((recording,), (HOLD, LINEAR))
    before = evaluate(inputs, tmp_path / "out", CONFIG)
    files = sorted((tmp_path / "out" / "scores").rglob("*.json"))
    assert len(files) >= len(HOSTILE_JSON)
    for file, content in zip(files, HOSTILE_JSON.values(), strict=False):
        file.write_bytes(content)
    assert evaluate(inputs, tmp_path / "out", CONFIG).scores == before.scores
