"""`evfi evaluate`: what it asks of the library, what it prints, how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples_on_disk import write_recording

from evfi import cli
from evfi.cli import evaluate as module
from evfi.evaluation.results_file import read_results
from evfi.evaluation.systems import SystemRequest

MINIMAL = ("--baseline", "hold", "linear", "--results", "theirs=FOLDER", "--skips", "1", "--metrics", "psnr_rgb")


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the baselines, made by the command line."""
    folder = tmp_path_factory.mktemp("evaluated")
    recording = write_recording(folder / "square")
    frames = folder / "theirs"
    frames.mkdir()
    for number in (1, 3, 5, 7):
        (frames / f"{number:04d}.png").write_bytes((recording / "frames" / f"{number - 1:06d}.png").read_bytes())
    arguments = [str(frames) if part == "FOLDER" else part.replace("FOLDER", str(frames)) for part in MINIMAL]
    assert run("evaluate", recording, "-o", folder / "out", *arguments) == 0
    return folder


def test_systems_stand_in_the_results(evaluated: Path):
    results = read_results(evaluated / "out" / "results.json")
    assert [(system.name, system.kind) for system in results.systems] == [
        ("theirs", "frames"), ("hold", "baseline"), ("linear", "baseline")]  # fmt: skip
    assert results.command.startswith("evfi evaluate ")
    held, theirs = (
        [score.values for score in results.scores if score.system == name and score.region == "all"]
        for name in ("hold", "theirs")
    )
    assert held == theirs  # the frames before, in both


def test_what_is_printed(evaluated: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [part.replace("FOLDER", str(evaluated / "theirs")) for part in MINIMAL]
    assert run("evaluate", evaluated / "square", "-o", evaluated / "out", *arguments) == 0
    text = capsys.readouterr().out
    assert "PSNR" in text
    assert "protocol raw" in text
    assert f"report   {evaluated / 'out' / 'report.html'}" in text


def test_open_shows_the_report(evaluated: Path, monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []
    monkeypatch.setattr(module.webbrowser, "open", shown.append)
    arguments = [part.replace("FOLDER", str(evaluated / "theirs")) for part in MINIMAL]
    assert run("evaluate", evaluated / "square", "-o", evaluated / "out", "--open", *arguments) == 0
    assert shown == [(evaluated / "out" / "report.html").as_uri()]


def test_comparison(evaluated: Path, capsys: pytest.CaptureFixture[str]):
    out = evaluated / "out"
    assert run("evaluate", "--compare", out, out / "results.json", "--systems", "hold", "linear") == 0
    text = capsys.readouterr().out
    assert "PSNR" in text
    assert "linear" in text


def parsed(*arguments: str) -> tuple[SystemRequest, ...]:
    return module.system_requests(module.parse(module.EvaluateCommand, "evaluate", arguments))


def test_what_is_evaluated_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "missing_baseline", lambda name: "not installed" if name == "rife" else None)
    assert parsed("DATA") == (
        SystemRequest("evfi-tiny", "model", "evfi-tiny"),
        SystemRequest("hold", "baseline", "hold"),
        SystemRequest("linear", "baseline", "linear"),
    )
    assert parsed("DATA", "--baseline", "none", "--steps", "5") == (
        SystemRequest("evfi-tiny", "model", "evfi-tiny", {"num_inference_steps": 5}),
    )
    assert parsed("DATA", "--preset", "fast", "--baseline", "none") == (
        SystemRequest("evfi-tiny", "model", "evfi-tiny", preset="fast"),
    )
    assert parsed("DATA", "--results", "x=a/b=c", "--baseline", "none") == (SystemRequest("x", "frames", "a/b=c"),)
    assert parsed("DATA", "--baseline", "rife", "--model", "a/b", "vdm-evfi") == (
        SystemRequest("b", "model", "a/b"),
        SystemRequest("vdm-evfi", "model", "vdm-evfi"),
        SystemRequest("rife", "baseline", "rife"),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected recordings, videos or folders"),
        (("DATA",), "-o FOLDER"),
        (("DATA", "-o", "OUT", "--baseline", "rive"), "unknown baseline 'rive'; known are hold, linear, rife"),
        (("DATA", "-o", "OUT", "--results", "FOLDER"), "NAME=FOLDER"),
        (("DATA", "-o", "OUT", "--systems", "a", "b"), "--systems needs --compare"),
        (("DATA", "--compare", "a", "b"), "leave out the data"),
        (("DATA", "-o", "OUT", "--protocol", "vdm"), "no protocol 'vdm'; known are raw, vdm-evfi"),
        (("DATA", "-o", "OUT", "--skips", "0"), "skips must be at least 1"),
    ],
)
def test_wrong_use_takes_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    places = {"DATA": str(write_recording(tmp_path / "rec")), "OUT": str(tmp_path / "out")}
    assert run("evaluate", *(places.get(part, part) for part in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_comparing_what_is_no_results_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.json").write_text("{}")
    assert run("evaluate", "--compare", tmp_path / "a.json", tmp_path / "a.json") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
