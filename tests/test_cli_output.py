"""What reaches the terminal: nothing that it would obey, nothing that it cannot show, and no traceback after Ctrl-C."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.progress import Progress

import evfi
from evfi import cli
from evfi.cli import dispatch, interrupts, progress, terminal
from evfi.errors import InputError, escaped
from evfi.evaluation.results_table import Table, text_lines
from evfi.events.stream import EventStream
from evfi.files import one_line
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.video.io import VideoFrames
from evfi.video.writer import VideoWriter

SIZE = (24, 16)
NASTY = "a\x1b[2J\x9b\nevfi: all is well\u202e"
SHOWN = r"a\x1b[2J\x9b\nevfi: all is well\u202e"


def write_video(path: Path) -> Path:
    with VideoWriter(path, SIZE, 25) as writer:
        for index in range(5):
            writer.write(np.full((SIZE[1], SIZE[0], 3), 40 * index, np.uint8))
    return path


@pytest.fixture
def event_file(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    columns = {"x": generator.integers(0, 24, 99), "y": generator.integers(0, 16, 99)}
    columns |= {"t": np.sort(generator.integers(0, 9999, 99)), "p": generator.integers(0, 2, 99)}
    np.savez(tmp_path / "e.npz", **columns)
    return tmp_path / "e.npz"


def in_ascii(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What a terminal without other letters gets from now on."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", write_through=True))
    return raw


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


class TestEscaping:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (NASTY, SHOWN),
            ("\t\r\x00\x7f\x85", r"\t\r\x00\x7f\x85"),
            ("b\udcff\ud800", r"b\xff\ud800"),
            ("\u2028\U000e0001", r"\u2028\U000e0001"),
            ("C:\\x1b é 猫\u3000\u200d\xa0", "C:\\x1b é 猫\u3000\u200d\xa0"),
        ],
    )
    def test_letters(self, text: str, shown: str) -> None:
        assert escaped(text) == shown
        assert escaped(shown) == shown
        assert str(InputError(text)) == shown

    def test_what_other_libraries_say(self) -> None:
        assert one_line(ValueError("two\nlines \x1b")) == r"two lines \x1b"


class TestWhatIsPrinted:
    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.print_lines(NASTY, "b")
        assert capsys.readouterr().out == f"{SHOWN}\nb\n"

    def test_json_keeps_every_letter(self, capsys: pytest.CaptureFixture[str]) -> None:
        value = {"name": NASTY + "\x7f\udcff"}
        terminal.print_json(value, indent=2)
        out = capsys.readouterr().out
        assert out.replace("\n", "").isascii() and out.replace("\n", "").isprintable()
        assert json.loads(out) == value

    @pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
    def test_a_record_of_the_log_is_one_line(self, level: int, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.show_log()
        logging.getLogger("evfi.models.registry").log(level, "licence: %s", NASTY)
        mark = "warning: " if level == logging.WARNING else ""
        assert capsys.readouterr().err == f"evfi: {mark}licence: {SHOWN}\n"

    def test_notes_of_progress(self, capsys: pytest.CaptureFixture[str]) -> None:
        with progress.ProgressReport("windows", interval_s=0) as report:
            report(1, 2, NASTY)
        assert capsys.readouterr().err == f"evfi: 1 of 2 windows, {SHOWN}\n"

    def test_notes_of_a_progress_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        notes = []
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(Progress, "start", lambda self: None)
        monkeypatch.setattr(Progress, "stop", lambda self: None)
        monkeypatch.setattr(Progress, "update", lambda self, task, **fields: notes.append(fields["note"]))
        with progress.ProgressReport("windows") as report:
            report(1, 2, NASTY)
        assert notes == [SHOWN]

    def test_a_name_in_a_table_is_no_line_of_it(self) -> None:
        assert len(text_lines(Table(("skip", NASTY), (("1", "2"),)))) == 2

    def test_names_of_files(self, tmp_path: Path, event_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source, target = tmp_path / f"{NASTY}.npz", tmp_path / f"out {NASTY}.csv"
        event_file.rename(source)
        assert run("convert", source, target, "--sensor-size", 24, 16) == 0
        assert run("inspect", source, "--sensor-size", 24, 16) == 0
        out = capsys.readouterr().out
        assert f"out {SHOWN}.csv" in out
        assert f"/{SHOWN}.npz\n" in out
        assert "\x1b" not in out and "\nevfi: all" not in out

    def test_a_pictures_name_in_a_warning(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        events = EventStream.from_arrays([1, 2], [1, 2], [10, 40_000], [1, -1], SIZE)
        write_plain_recording(tmp_path / "r", np.zeros((3, 16, 24, 3), np.uint8), np.arange(3) * 40_000, events)
        for name, number in (("000000", 1), ("000001", 2), ("000002", 4)):  # 3 is missing
            (tmp_path / "r" / "frames" / f"{name}.png").rename(tmp_path / "r" / "frames" / f"{NASTY}{number}.png")
        assert run("convert", tmp_path / "r", tmp_path / "o.npz") == 0
        captured = capsys.readouterr()
        assert f"{SHOWN}2.png" in captured.err
        assert all(line.startswith("evfi: warning: ") for line in captured.err.splitlines())
        assert "\x1b" not in captured.out + captured.err

    def test_nothing_else_prints(self) -> None:
        package = Path(evfi.__file__).parent
        sources = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
        found = [
            f"{path.relative_to(package)}:{node.lineno}"
            for path, source in sources.items()
            if re.search(r"\bprint\(|std(out|err)\.write|warnings\.warn", source)
            for node in ast.walk(ast.parse(source))
            if _prints(node)
        ]
        assert [place for place in found if not place.startswith("cli/terminal.py:")] == []


def _prints(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write", "warnings.warn")


class TestTerminalsThatLackLetters:
    def test_results(self, tmp_path: Path, event_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = in_ascii(monkeypatch)
        assert run("convert", event_file, tmp_path / "b\udcff.csv", "--sensor-size", 24, 16) == 0
        assert run("simulate", write_video(tmp_path / "v.mp4"), "-o", tmp_path / "é", "--keep-every", 2) == 0
        assert b" ?s\n" in raw.getvalue()
        assert rb"b\xff.csv" in raw.getvalue()
        assert b"24?16" in raw.getvalue()
        assert b"/?\n" in raw.getvalue()

    @pytest.mark.parametrize("command", ["simulate", "train"])
    def test_help(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = in_ascii(monkeypatch)
        with pytest.raises(SystemExit) as ended:
            run(command, "--help")
        assert ended.value.code == 0
        assert f"evfi {command}".encode() in raw.getvalue()


class TestStreamsThatCannotBeWritten:
    """A full disk behind stdout is told in one line; behind stderr, nobody can be told, and the work goes on."""

    FULL = Path("/dev/full")

    @pytest.fixture(autouse=True)
    def _needs_the_device(self) -> None:
        if not self.FULL.exists():
            pytest.skip("there is no /dev/full here")

    def assert_told(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "evfi", *map(str, arguments)]
        with self.FULL.open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.stderr.startswith("evfi: error: cannot write to stdout: No space left on device; ")
        assert done.stderr.count("\n") == 1
        assert done.returncode == 1

    def test_help(self) -> None:
        self.assert_told("--help")
        self.assert_told("convert", "--help")

    @pytest.mark.parametrize("option", [(), ("--json",)])
    def test_inspect(self, event_file: Path, option: tuple[str, ...]) -> None:
        self.assert_told("inspect", event_file, "--sensor-size", 24, 16, *option)

    def test_what_was_written_stays(self, tmp_path: Path, event_file: Path) -> None:
        self.assert_told("convert", event_file, tmp_path / "o.csv", "--sensor-size", 24, 16)
        assert (tmp_path / "o.csv").stat().st_size > 0

    def test_stderr(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(sys, "stderr", self.FULL.open("w"))
        for _ in range(2):
            terminal.print_lines("a warning", to_stderr=True)
        terminal.print_lines("a result")
        assert capsys.readouterr().out == "a result\n"


@pytest.mark.parametrize("columns", ["1", "4", "20"])
def test_help_in_a_few_columns(columns: str) -> None:
    """In a process of its own, whose memory would grow without end."""
    command = [sys.executable, "-m", "evfi", "inspect", "--help"]
    environment = {**os.environ, "COLUMNS": columns}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    assert "--sensor-size" in done.stdout


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    command = f'"{sys.executable}" -m evfi inspect --help {closed}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_colon_in_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("12:30").mkdir()
    with VideoFrames(write_video(Path("12:30/frames.mp4"))) as video:
        assert len(video) == 5


class TestInterrupts:
    """Ctrl-C ends the work once, however often it comes while things are tidied up."""

    def interrupted(self, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> int:
        monkeypatch.setattr(dispatch, "import_module", lambda _: SimpleNamespace(run=lambda _: work()))
        before = signal.getsignal(signal.SIGINT)
        status = cli.main(["demo"])
        assert signal.getsignal(signal.SIGINT) is before
        return status

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_many(
        self, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tidied = []

        def work() -> None:
            try:
                os.kill(os.getpid(), number)
            finally:
                for _ in range(30):
                    os.kill(os.getpid(), number)
                tidied.append(True)

        assert self.interrupted(monkeypatch, work) == 130
        assert tidied == [True]
        assert capsys.readouterr().err == "evfi: error: interrupted; run the same command to start again\n"

    def test_work_that_went_on_can_be_interrupted_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [100.0]
        monkeypatch.setattr(interrupts.time, "monotonic", lambda: clock[0])
        came = []

        def work() -> None:
            for _ in range(2):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except KeyboardInterrupt:
                    came.append(clock[0])
                clock[0] += 2 * interrupts.ENDING_S

        assert self.interrupted(monkeypatch, work) == 0
        assert len(came) == 2

    def test_what_the_first_one_said_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def work() -> None:
            try:
                raise KeyboardInterrupt("all is saved")
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        assert self.interrupted(monkeypatch, work) == 130
        assert capsys.readouterr().err == "evfi: error: all is saved\n"

    def test_many_while_python_imports(self) -> None:
        code = """
        import os, signal, sys
        from importlib.abc import MetaPathFinder

        class Interrupting(MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "evfi.cli.dispatch":
                    try:
                        os.kill(os.getpid(), signal.SIGINT)
                    finally:
                        for _ in range(30):
                            os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in the background
        sys.meta_path.insert(0, Interrupting())
        from evfi.cli import main
        status = main()
        os.kill(os.getpid(), signal.SIGINT)
        sys.exit(status)
        """
        command = [sys.executable, "-c", textwrap.dedent(code), "demo"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (130, "")

    def test_an_interrupt_within_generated_code(self, tmp_path: Path) -> None:
        """While a dataclass is made, for example: `python -m` then ended by SIGINT itself, not with a status."""
        code = """
        import sys
        from types import SimpleNamespace
        from evfi.cli import dispatch, main

        dispatch.import_module = lambda _: SimpleNamespace(run=lambda _: exec("raise KeyboardInterrupt"))
        sys.exit(main(["demo"]))
        """
        (tmp_path / "interrupted.py").write_text(textwrap.dedent(code))
        command = [sys.executable, "-m", "interrupted"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 130

    def test_a_program_that_ends_is_left_in_peace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(sys, "argv", ["evfi", "nothing"])
        try:
            assert cli.main() == 2
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
