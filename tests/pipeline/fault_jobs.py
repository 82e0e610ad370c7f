"""Jobs in processes of their own, for tests that disturb them; see `fault_driver`."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from evfi.events.stream import EventStream
from evfi.recordings.datasets.plain_writer import write_plain_recording

WIDTH, HEIGHT = 64, 48
STEP_US = 40_000
NUM_WINDOWS = 40
DRIVER = Path(__file__).with_name("fault_driver.py")
LIMIT_S = 180.0
_MARK = "EVFI_TESTED_RUN"

needs_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")


def slow(*values: object) -> object:
    """A set of a test's parameters for the long run only."""
    return pytest.param(*values, marks=pytest.mark.slow)


def write_recording(folder: Path, windows: int = NUM_WINDOWS, *, seed: int = 0) -> Path:
    """A recording on disk: noise that moves, 100 events per window."""
    generator = np.random.default_rng(seed)
    texture = generator.integers(0, 200, (HEIGHT, WIDTH * 2, 3), dtype=np.uint8)
    frames = (texture[:, shift % WIDTH : shift % WIDTH + WIDTH] for shift in range(windows + 1))
    count = 100 * windows
    events = EventStream.from_arrays(
        generator.integers(0, WIDTH, count),
        generator.integers(0, HEIGHT, count),
        1_000_000 + np.sort(generator.integers(0, STEP_US * windows, count)),
        generator.choice([-1, 1], count),
        (WIDTH, HEIGHT),
    )
    write_plain_recording(folder, frames, 1_000_000 + STEP_US * np.arange(windows + 1), events)
    return folder


@dataclass
class RunningJob:
    """A job's process."""

    process: subprocess.Popen[str]
    mark: str

    def processes(self, *, workers: bool = False) -> list[int]:
        """The process and all that it started, as far as they live; or only those that work on windows."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                is_ours = f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if is_ours and (not workers or b"spawn_main" in command):
                found.append(int(entry.name))
        return found

    def kill(self, *, group: bool = True) -> None:
        """kill -9, of the whole group or the first process alone."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, timeout: float = LIMIT_S) -> Finished:
        """Wait for the end."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Finished(self.process.returncode, out or "", err or "")

    def wait_until(self, condition: Callable[[], bool], timeout: float = LIMIT_S) -> bool:
        """Wait until something is so; False if the process ended before."""
        limit = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > limit:
                self.kill()
                raise TimeoutError("what was waited for did not happen")
            time.sleep(0.002)
        return True

    def assert_all_gone(self, within_s: float = 20.0) -> None:
        """No process is left, be it after a while."""
        limit = time.monotonic() + within_s
        while left := self.processes():
            assert time.monotonic() < limit, f"processes left behind: {left}"
            time.sleep(0.05)


@dataclass(frozen=True)
class Finished:
    """How a process ended and what it said."""

    status: int
    out: str
    err: str


@dataclass
class FaultJob:
    """A command whose job is disturbed.

    Attributes:
        recording: what is interpolated.
        folder: where results and all else go.
        workers: so many processes work.
        seconds: each window takes.
        faults: of the stand-in, see `fault_model`.
        more: further arguments.
        pictures: whether pictures are written beside the video.
    """

    recording: Path
    folder: Path
    workers: int = 2
    seconds: float = 0.05
    faults: Sequence[str] = ()
    more: Sequence[str] = ("--no-report",)
    pictures: bool = True
    inserted: int = 3
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.notes.mkdir(exist_ok=True)

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    @property
    def video(self) -> Path:
        return self.folder / "video.mp4"

    @property
    def frames_dir(self) -> Path:
        return self.folder / "frames"

    @property
    def job(self) -> Path:
        return self.folder / ".video.mp4.evfi"

    @property
    def command(self) -> list[str]:
        model = ",".join([str(self.notes), str(self.seconds), *self.faults])
        arguments = ["interpolate", str(self.recording), "-o", str(self.video), "--insert", str(self.inserted)]
        arguments += ["--frames-dir", str(self.frames_dir)] if self.pictures else []
        arguments += ["--model", model, "--devices", ",".join(["cpu"] * self.workers)]
        return [sys.executable, str(DRIVER), *arguments, *self.more]

    def start(self, *more: str, command: Sequence[str] | None = None, **options: object) -> RunningJob:
        """Start the command, as a group of processes of its own."""
        mark = uuid.uuid4().hex
        environment = {**os.environ, **self.environment, _MARK: mark, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, **options}
        process = subprocess.Popen([*(command or self.command), *more], text=True, env=environment, **pipes)  # type: ignore[call-overload]
        return RunningJob(process, mark)

    def run(self, *more: str, **options: object) -> Finished:
        """Run the command to its end, and make sure that it leaves no process."""
        job = self.start(*more, **options)
        finished = job.wait()
        job.assert_all_gone()
        return finished

    def run_here(self, *more: str) -> Finished:
        """Run the command without starting Python anew, which takes most of the time, with this process as its worker."""
        import fault_driver

        return fault_driver.run_here([*self.command[2:], *more, "--workers", "here"])

    @property
    def pieces(self) -> list[str]:
        """Names of finished pieces."""
        folder = self.job / "windows"
        return sorted(p.name for p in folder.iterdir() if p.name.endswith(".zip")) if folder.is_dir() else []

    def attempts(self) -> dict[int, list[int]]:
        """Per window, the processes that tried it, in order."""
        found: dict[int, list[int]] = {}
        for note in sorted(self.notes.iterdir(), key=lambda path: [int(part) for part in path.name.split("-")]):
            found.setdefault(int(note.name.split("-")[0]), []).append(int(note.read_text() or 0))
        return found

    def results(self) -> dict[str, str]:
        """Checksums of the video and of all pictures."""
        files = [self.video, *(sorted(self.frames_dir.iterdir()) if self.pictures else [])]
        return {str(file.relative_to(self.folder)): digest(file) for file in files}

    def leftovers(self) -> list[Path]:
        """Temporary files that something left."""
        return [path for path in self.folder.rglob("*") if path.name.endswith(".part")]


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
