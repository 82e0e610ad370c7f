"""The command line: what it prints where, and how it fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import evfi
from evfi import cli
from evfi.cli import dispatch, terminal
from evfi.errors import ConfigError, EvfiError, InputError, ResourceError
from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator
from evfi.models.facts import ModelFacts
from evfi.pipeline import models
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.video.io import VideoFrames, read_image
from evfi.video.writer import VideoWriter
from evfi.workers.devices import parse_devices
from stand_ins import HEIGHT, STEP_US, WIDTH, Blender, key_frames


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Blender:
    """Replaces loading a model; the stand-in remembers what it was loaded with."""
    blender = Blender()
    blender.bundle = SimpleNamespace(info=SimpleNamespace(name="stand-in"))

    def load(
        name: str,
        device: str,
        dtype: str | None = None,
        *,
        max_memory: int | None = None,
        preset: str = "exact",
        **sampling: object,
    ) -> Blender:
        blender.loaded, blender.preset, blender.max_memory = (name, device, dtype, sampling), preset, max_memory
        return blender

    monkeypatch.setattr(Interpolator, "from_pretrained", staticmethod(load))
    return blender


def write_recording(folder: Path, *, number: int = 4, event_span_us: tuple[int, int] | None = None) -> Path:
    generator = np.random.default_rng(0)
    start, end = event_span_us or (0, (number - 1) * STEP_US)
    events = EventStream.from_arrays(
        generator.integers(0, WIDTH, 900),
        generator.integers(0, HEIGHT, 900),
        generator.integers(start, end, 900),
        generator.choice([-1, 1], 900),
        (WIDTH, HEIGHT),
    )
    write_plain_recording(folder, key_frames(number), STEP_US * np.arange(number), events)
    return folder


def run(*arguments: object) -> int:
    words = [str(argument) for argument in arguments]
    if words[:1] == ["interpolate"] and "--workers" not in words:
        words += ["--workers", "here"]  # where the stand-in for the model is
    return cli.main(words)


def failure(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout."""
    assert run(*arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[-1].startswith("evfi: error: ")
    assert all(line.startswith("evfi: ") for line in lines)
    return lines[-1]


class TestProgram:
    def test_help_lists_every_command_at_once(self):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "evfi", "--help"], capture_output=True, text=True, check=True)
        assert time.monotonic() - began < 3
        for command in dispatch.COMMANDS:
            assert f"\n  {command} " in done.stdout

    def test_version(self, capsys):
        with pytest.raises(SystemExit) as ended:
            run("--version")
        assert ended.value.code == 0
        assert capsys.readouterr().out == f"evfi {evfi.__version__}\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "expected a command, got none; available commands: interpolate, "),
            (["interpolat"], "unknown command 'interpolat'"),
            (["--verbose"], "unknown command '--verbose'"),
            (["interpolate"], "missing from evfi interpolate: RECORDING; see"),
            (["interpolate", "a", "--wrong"], "unrecognized options: --wrong"),
            (["interpolate", "a", "--instert", "3"], "unrecognized options: --instert 3; perhaps --insert; see"),
            (["interpolate", "a", "--device_s", "cpu"], "perhaps --devices"),
            (["interpolate", "a", "b"], "unrecognized options: b; see"),
            (["interpolate", "a", "--num_frames", "5"], "--num-frames: use --insert, which counts"),
            (["evaluate", "a", "--num-frames=5"], "--num-frames: use --skips, which counts"),
            (["interpolate", "a", "--rescale-factor", "2"], "--rescale-factor: use --upscale; see"),
            (["interpolate", "a", "--event-scale", "32"], "--event-scale: leave it out: "),
            (["interpolate", "a", "--width", "512"], "--width: leave it out: the size is read from the frames"),
            (["convert", "a", "b", "--width", "512"], "unrecognized options: --width 512; see"),
            (["train", "base", "--textures", "a", "--output", "b", "--widhts", "8"], "perhaps --widths"),
            (["interpolate", "a", "--insert", "x"], "--insert"),
            (["interpolate", "a", "--dtype", "float8"], "'float8' for argument '--dtype'"),
        ],
    )
    def test_wrong_usage_is_told_in_one_line(self, arguments, message, capsys):
        assert run(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.startswith("evfi: error: ")
        assert captured.err.count("\n") == 1

    @pytest.mark.parametrize("command", dispatch.COMMANDS)
    def test_every_command_has_help(self, command, capsys):
        with pytest.raises(SystemExit) as ended:
            run(command, "--help")
        assert ended.value.code == 0
        assert f"evfi {command}" in capsys.readouterr().out

    def test_help_of_interpolate(self, capsys):
        with pytest.raises(SystemExit):
            run("interpolate", "--help")
        text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
        titles = ["positional arguments", *(f"{name}options" for name in ("", "frame ", "input ", "video ", "job "))]
        places = [text.index(title) for title in [*titles, "advanced options"]]
        assert places == sorted(places)
        assert "better. (default: 3 for evfi-tiny, 25 for vdm-evfi)" in text
        assert "--upscale INT whole factor" in text
        assert not re.search(r"\(default: (None|False)?\)|`", text)

    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            (InputError("two\nlines"), 1, "two\\nlines"),
            (ConfigError("bad setting"), 2, "bad setting"),
            (EvfiError("other"), 1, "other"),
            (MemoryError(), 1, "not enough memory"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory"),
            (RuntimeError("could not create a primitive"), 1, "not enough memory"),
            (RuntimeError("can't start new thread"), 1, "not enough memory"),
            (ImportError("libSvtAv1Enc.so: failed to map segment from shared object"), 1, "not enough memory"),
            (KeyboardInterrupt(), 130, "interrupted"),
        ],
    )
    def test_errors_take_one_line(self, error, status, message, capsys, monkeypatch):
        def fail(_: object) -> None:
            raise error

        monkeypatch.setattr(dispatch, "import_module", lambda _: SimpleNamespace(run=fail))
        assert message in failure(capsys, "interpolate", status=status)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("a bug"),
            RuntimeError("could not create a primitive descriptor for a convolution"),
            ImportError("cannot import name 'a bug'"),
            ImportError("a.so: failed to map segment from shared object: Operation not permitted"),
        ],
    )
    def test_bugs_are_not_hidden(self, error, monkeypatch):
        def fail(_: object) -> None:
            raise error

        monkeypatch.setattr(dispatch, "import_module", lambda _: SimpleNamespace(run=fail))
        with pytest.raises(type(error), match=str(error)):
            run("demo")

    def test_a_library_without_memory_is_no_damaged_file(self, tmp_path):
        """The library that compiles loops says OSError; readers take that for an error of their file."""
        code = """
        import sys
        from importlib.abc import MetaPathFinder
        from evfi.cli import main

        class Failing(MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "numba":
                    try:
                        raise OSError("libllvmlite.so: failed to map segment from shared object")
                    except OSError:
                        raise OSError("Could not find/load shared object file")

        sys.meta_path.insert(0, Failing())
        sys.exit(main())
        """
        (tmp_path / "e.txt").write_text("0.5 1 2 1\n0.6 1 2 0\n")
        command = [
            sys.executable,
            "-c",
            textwrap.dedent(code),
            "inspect",
            tmp_path / "e.txt",
            "--sensor-size",
            "4",
            "4",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("evfi: error: not enough memory; ")


class TestInterpolate:
    def test_video_and_pictures(self, tmp_path, model, capsys):
        recording = write_recording(tmp_path / "r")
        output, frames = tmp_path / "out.mp4", tmp_path / "frames"
        assert run("interpolate", recording, "-o", output, "--frames-dir", frames, "--insert", 3, "--seed", 7) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        for part in ("windows   3", "frames    13, 9 of them new", "s of work per new", "4 times slower", str(output)):
            assert part in captured.out
        assert model.seen == [(0, 7), (1, 7), (2, 7)]
        assert model.loaded == ("evfi-tiny", parse_devices("auto")[0], None, {})
        assert model.preset == "exact"
        with VideoFrames(output) as video:
            assert len(video) == 13
        np.testing.assert_array_equal(read_image(frames / "000012.png"), key_frames()[3])

    def test_settings_reach_the_model(self, tmp_path, model, capsys, monkeypatch):
        facts = ModelFacts("m", 5, {}, "0" * 64)
        monkeypatch.setattr(models, "model_facts", {"m": facts}.__getitem__)
        recording = write_recording(tmp_path / "r")
        arguments = ("--model", "m", "--device", "cpu", "--dtype", "bfloat16", "--no-diffusion")
        arguments += ("--preset", "fast", "--max-memory", "8GiB")
        part = ("--start", 0.04, "--end", 0.08, "--slowdown", 2, "--fps", 50)
        assert run("interpolate", recording, "-o", tmp_path / "a.mp4", *arguments, *part) == 0
        assert model.loaded == ("m", "cpu", "bfloat16", {"diffusion": False})
        assert model.preset == "fast"
        assert model.max_memory == 8 * 2**30
        assert model.seen == [(1, 0)]
        assert "50 fps, 2 times slower" in capsys.readouterr().out

    def test_blended_windows_are_counted_aloud(self, tmp_path, model, capsys):
        recording = write_recording(tmp_path / "r", event_span_us=(0, STEP_US))
        assert run("interpolate", recording, "-o", tmp_path / "a.mp4", "--insert", 1) == 0
        captured = capsys.readouterr()
        assert "2 with few events and no visible motion: blended" in captured.out
        assert model.seen == [(0, 0)]
        assert captured.err.startswith("evfi: warning: ")


class TestInterpolateFails:
    """Each failure: one line, nothing left behind, before a model is loaded."""

    @pytest.fixture(autouse=True)
    def no_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a model was loaded before everything was checked")

        monkeypatch.setattr(Interpolator, "from_pretrained", staticmethod(refuse))

    def failed(self, capsys, tmp_path: Path, recording: Path, *arguments: object, status: int = 1) -> str:
        output = tmp_path / "out.mp4"
        line = failure(capsys, "interpolate", recording, "-o", output, *arguments, status=status)
        assert not output.exists()
        assert not list(tmp_path.glob(".*"))
        return line

    def test_no_such_file(self, tmp_path, capsys):
        assert "no such file" in self.failed(capsys, tmp_path, tmp_path / "none.aedat4")

    def test_unknown_format(self, tmp_path, capsys):
        (tmp_path / "notes.txt").write_text("hello")
        assert "unknown format" in self.failed(capsys, tmp_path, tmp_path / "notes.txt")

    def test_one_frame(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r")
        for name in ("000001.png", "000002.png", "000003.png"):
            (recording / "frames" / name).unlink()
        (recording / "timestamps.txt").write_text("0\n")
        assert "at least two frames" in self.failed(capsys, tmp_path, recording)

    def test_no_events_where_wanted(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r", event_span_us=(0, STEP_US))
        line = self.failed(capsys, tmp_path, recording, "--start", 0.05)
        assert "no events between" in line

    def test_all_events_outside_the_sensor(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r")
        np.savez(
            recording / "events.npz",
            x=np.full(9, WIDTH),
            y=np.zeros(9, int),
            t=np.arange(9) * STEP_US // 5,
            p=np.ones(9),
        )
        line = self.failed(capsys, tmp_path, recording)
        assert "all 9 events where frames are to be inserted lie outside the sensor" in line

    def test_named_files_that_do_not_fit_are_an_error(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r")
        (tmp_path / "times.txt").write_text("1\n2\n")
        message = failure(capsys, "inspect", recording, "--timestamps", tmp_path / "times.txt")
        assert "expected one time per frame" in message

    def test_no_overlap(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r", event_span_us=(10**9, 10**9 + 100))
        assert "do not overlap in time" in self.failed(capsys, tmp_path, recording)

    def test_corrupt_events(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r")
        events = recording / "events.npz"
        events.write_bytes(events.read_bytes()[:2000])
        assert "events.npz" in self.failed(capsys, tmp_path, recording)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--insert", 0), "at least 1"),
            (("--insert", 3, "--slowdown", 4), "either insert or slowdown"),
            (("--steps", 0), "error: --steps must be from 1 to 1000, got 0"),
            (("--conditioning-fps", 0), "error: --conditioning-fps must be from 1 to 1000, got 0"),
            (("--decode-chunk-size", 0), "error: --decode-chunk-size must be"),
            (("--s-churn", -1), "error: --s-churn must be"),
            (("--start", -1), "start"),
            (("--fps", 5000), "fps"),
        ],
    )
    def test_wrong_settings(self, tmp_path, capsys, arguments, message):
        recording = write_recording(tmp_path / "r")
        assert message in self.failed(capsys, tmp_path, recording, *arguments, status=2)

    def test_unwritable_output(self, tmp_path, capsys):
        recording = write_recording(tmp_path / "r")
        assert "no folder" in failure(capsys, "interpolate", recording, "-o", tmp_path / "no" / "a.mp4")
        assert ".mp4" in failure(capsys, "interpolate", recording, "-o", tmp_path / "a.gif")
        assert "is read from it" in failure(capsys, "interpolate", recording, "--frames-dir", recording)
        assert "is read from it" in failure(capsys, "interpolate", recording, "--frames-dir", recording / "frames")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine").touch()
        assert "not empty" in failure(capsys, "interpolate", recording, "--frames-dir", tmp_path / "full")
        assert "expected an output, got none" in failure(capsys, "interpolate", recording, status=2)


class TestInterpolateBreaksDown:
    """Failures in the middle of the work: one line, no result, and the job is kept for the next attempt."""

    def broken(self, tmp_path: Path, capsys, recording: Path, *, status: int = 1) -> str:
        line = failure(capsys, *self.command(tmp_path, recording), status=status)
        assert {path.name for path in tmp_path.iterdir()} == {"r", ".out.mp4.evfi"}
        return line

    def goes_on(self, tmp_path: Path, capsys, recording: Path) -> str:
        """The same command once more; what it says."""
        assert run(*self.command(tmp_path, recording)) == 0
        with VideoFrames(tmp_path / "out.mp4") as video:
            assert len(video) == 7
        assert len(list((tmp_path / "pictures").glob("*.png"))) == 7
        return capsys.readouterr().out

    def command(self, tmp_path: Path, recording: Path) -> tuple[object, ...]:
        output, frames = tmp_path / "out.mp4", tmp_path / "pictures"
        return "interpolate", recording, "-o", output, "--frames-dir", frames, "--insert", 1

    def test_not_enough_memory(self, tmp_path, model, capsys):
        recording = write_recording(tmp_path / "r")
        model.fail_at, model.error = 1, MemoryError
        assert "not enough memory" in self.broken(tmp_path, capsys, recording)
        model.fail_at, model.seen = None, []
        assert "3, 1 of them already done" in self.goes_on(tmp_path, capsys, recording)
        assert model.seen == [(1, 0), (2, 0)]

    def test_too_little_memory_for_some_windows(self, tmp_path, model, capsys):
        recording = write_recording(tmp_path / "r")
        model.fail_at, model.error = 1, ResourceError
        line = self.broken(tmp_path, capsys, recording)
        assert "1 of 3 windows failed: window 1: stand-in failed. All others are kept in " in line
        assert "run the same command to retry the failed ones" in line
        model.fail_at, model.seen = None, []
        assert "3, 2 of them already done" in self.goes_on(tmp_path, capsys, recording)
        assert model.seen == [(1, 0)]

    def test_polite_kill(self, tmp_path, model, capsys):
        recording = write_recording(tmp_path / "r")
        original = model.interpolate_window

        def killed(window, **arguments):
            if window.spec.index == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(window, **arguments)

        model.interpolate_window = killed
        line = self.broken(tmp_path, capsys, recording, status=130)
        assert "interrupted; 1 of 3 windows are done and kept in " in line
        assert "run the same command to resume" in line
        model.interpolate_window, model.seen = original, []
        assert "3, 1 of them already done" in self.goes_on(tmp_path, capsys, recording)
        assert model.seen == [(1, 0), (2, 0)]

    def test_truncated_picture(self, tmp_path, model, capsys):
        recording = write_recording(tmp_path / "r")
        picture = recording / "frames" / "000003.png"
        content = picture.read_bytes()
        picture.write_bytes(content[:300])
        line = self.broken(tmp_path, capsys, recording)
        assert "1 of 3 windows failed: window 2: " in line
        assert "000003.png" in line
        assert model.seen == [(0, 0), (1, 0)]  # windows that the picture does not bound are made and kept


class TestOtherCommands:
    def test_simulate_makes_what_interpolate_reads(self, tmp_path, model, capsys):
        with VideoWriter(tmp_path / "v.mp4", (WIDTH, HEIGHT), 25) as writer:
            for index in range(7):
                writer.write(np.roll(key_frames()[0], 2 * index, axis=1))
        recording = tmp_path / "r"
        assert run("simulate", tmp_path / "v.mp4", "-o", recording, "--keep-every", 3) == 0
        out = capsys.readouterr().out
        assert "7, 3 of them key frames" in out
        assert str(recording) in out
        assert run("interpolate", recording, "-o", tmp_path / "a.mp4", "--insert", 2) == 0
        assert len(model.seen) == 2

    def test_simulate_fails_in_one_line(self, tmp_path, capsys):
        assert "no such video" in failure(capsys, "simulate", tmp_path / "none.mp4", "-o", tmp_path / "r")
        assert not list(tmp_path.iterdir())

    def test_demo(self, tmp_path, model, capsys):
        size = ("--width", 48, "--height", 36, "--windows", 1, "--insert", 1, "--sub-frames", 2)
        assert run("demo", "-o", tmp_path / "d", *size) == 0
        out = capsys.readouterr().out
        assert "linear blending" in out
        assert str(tmp_path / "d" / "demo.mp4") in out
        assert model.loaded == ("evfi-tiny", "cpu", None, {})

    def test_train_calls_the_loop(self, tmp_path, capsys, monkeypatch):
        from evfi.training import loop

        seen = []

        def train(config, *, on_step):
            seen.append(config)
            on_step(1, 1, 0.5)
            return loop.TrainSummary(1, True, tmp_path / "model", {"psnr": 30.0})

        monkeypatch.setattr(loop, "train", train)
        arguments = ("--textures", tmp_path, "--output", tmp_path / "run", "--steps", 1, "--max-weight", "None")
        assert run("train", "base", *arguments) == 0
        assert seen[0].stage == "base"
        assert seen[0].max_weight is None
        out = capsys.readouterr().out
        assert "finished" in out
        assert "psnr" in out


def test_log_reaches_stderr(capsys):
    import logging

    terminal.show_log()
    logging.getLogger("evfi.some").info("a note")
    logging.getLogger("evfi.some").warning("a danger")
    assert capsys.readouterr().err == "evfi: a note\nevfi: warning: a danger\n"
