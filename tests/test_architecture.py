"""Properties of the package as a whole: imports point one way, importing is harmless and light, public names are pinned."""

from __future__ import annotations

import ast
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evfi
from evfi.engine.devices import _has_driver
from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator
from evfi.recordings.datasets.plain_writer import write_plain_recording
from stand_ins import HEIGHT, STEP_US, WIDTH, Blender, key_frames

PACKAGE = Path(evfi.__file__).parent

ROOMS = [
    "errors",
    "compiled",
    "paths",
    "plain_json",
    "files",
    "guard",
    "limits",
    "zips",
    "report",
    "kinds",
    "strict_json",
    "safe_yaml",
    "fingerprints",
    "events",
    "video",
    "recordings",
    "models",
    "sampling",
    "engine",
    "interpolator",
    "workers",
    "pipeline",
    "training",
    "evaluation",
    "benchmark",
    "demo",
    "app",
    "cli",
    "__main__",
]
"""A room imports from itself and from the rooms before it."""

PUBLIC_NAMES = {
    "ConfigError",
    "EventStream",
    "EvfiError",
    "InputError",
    "Interpolator",
    "JobCancelledError",
    "ModelError",
    "OutputError",
    "Recording",
    "RecordingError",
    "ResourceError",
    "__version__",
    "cancel_job",
    "inspect_recording",
    "interpolate",
    "job_status",
    "load_model",
    "open_event_file",
    "open_recording",
}


def source_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_from_package(path: Path) -> Iterator[str]:
    """Every `evfi.…` module that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "evfi")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it absolute"
            if node.module == "evfi":
                yield from (f"evfi.{alias.name}" for alias in node.names)
            elif node.module is not None and node.module.startswith("evfi."):
                yield node.module


def run_python(code: str, *arguments: str) -> Any:
    """Run code in a fresh interpreter; it prints one JSON value last."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class TestImportsPointOneWay:
    def test_every_file_is_in_a_known_room(self) -> None:
        assert {room_of(path) for path in source_files()} <= set(ROOMS)

    @pytest.mark.parametrize("path", source_files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
    def test_file(self, path: Path) -> None:
        room = ROOMS.index(room_of(path))
        for module in imported_from_package(path):
            if module == "evfi.__version__":
                continue
            target = module.split(".")[1]
            assert target in ROOMS, f"{path} imports {module}: import public names from their own module"
            assert ROOMS.index(target) <= room, f"{path} ({ROOMS[room]}) imports {module}, a later room"


def test_who_plans_a_job_goes_without_the_libraries_of_its_networks() -> None:
    code = """
    import json, sys
    import evfi.cli.interpolate, evfi.pipeline.job, evfi.workers.plan
    from evfi.pipeline.models import ModelRequest

    request = ModelRequest()
    request.made_of(request.facts(), "cpu")
    print(json.dumps(sorted({"diffusers", "transformers", "torch"} & set(sys.modules))))
    """
    assert set(run_python(code)) <= ({"torch"} if _has_driver() else set())


NETWORK_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
READERS_LIBRARIES = ("numba", "scipy", "h5py", "av", "PIL", "rich", "lz4", "zstandard")


def loaded_by(*command: object) -> set[str]:
    """Which heavy libraries a command loads in a process of its own; it must succeed."""
    code = f"""
    import contextlib, io, json, sys
    from evfi.cli import main

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(sys.argv[1:])
        except SystemExit as ended:
            status = ended.code
    assert not status, status
    print(json.dumps([name for name in {NETWORK_LIBRARIES + READERS_LIBRARIES!r} if name in sys.modules]))
    """
    return set(run_python(code, *map(str, command)))


def small_recording(folder: Path) -> Path:
    times_us = STEP_US * np.arange(4)
    at = np.arange(900)
    events = EventStream.from_arrays(at % WIDTH, at % HEIGHT, at * 100, at % 2 * 2 - 1, (WIDTH, HEIGHT))
    write_plain_recording(folder, key_frames(4), times_us, events)
    return folder


class TestLightCommands:
    """What answers without networks loads no library of theirs: these take seconds to import."""

    @pytest.mark.parametrize("command", ["interpolate", "inspect", "convert"])
    def test_help(self, command: str) -> None:
        assert loaded_by(command, "--help") <= (set() if command == "interpolate" else {"PIL"})

    def test_inspection(self, tmp_path: Path) -> None:
        assert loaded_by("inspect", small_recording(tmp_path / "r")) & set(NETWORK_LIBRARIES) == set()

    def test_a_job_with_nothing_left_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from evfi.cli import main  # in this process, with a stand-in for the model

        command = ("interpolate", small_recording(tmp_path / "r"), "-o", tmp_path / "a.mp4", "--insert", 1)
        here = (*command, "--workers", "here", "--devices", "cpu")
        with monkeypatch.context() as stand_in:
            stand_in.setattr(Interpolator, "from_pretrained", staticmethod(lambda *_, **__: Blender()))
            assert main([str(word) for word in here]) == 0
        assert loaded_by(*command, "--devices", "cpu") & set(NETWORK_LIBRARIES) == set()
        if not _has_driver():
            assert loaded_by(*command) & set(NETWORK_LIBRARIES) == set()


def test_without_a_driver_torch_finds_no_gpu_either() -> None:
    assert _has_driver() or torch.cuda.device_count() == 0


WATCH = """
import importlib, json, sys

package, *modules = sys.argv[1:]
violations, current = [], None
CODE = (".py", ".pyc", ".so")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
DISK = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.listdir", "os.scandir", "tempfile.mkstemp")

def own_code_asks():
    # The innermost frame of the package or of an installed library says whose act this is.
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(package):
            return True
        if "site-packages" in frame.f_code.co_filename or "importlib" in frame.f_code.co_filename:
            return False
        frame = frame.f_back
    return False

def hook(event, arguments):
    if current is None:
        return
    opens = event == "open" and isinstance(arguments[0], str) and not arguments[0].endswith(CODE)
    if event in NETWORK or ((event in DISK or opens) and own_code_asks()):
        violations.append([current, event])

sys.addaudithook(hook)
for current in modules:
    importlib.import_module(current)
current = None
torch = sys.modules.get("torch")
if torch is not None and torch.cuda.is_initialized():
    violations.append(["", "cuda"])
print(json.dumps(violations))
"""
"""Imports modules and prints what they asked of network, disk and GPU, seen through the interpreter's audit events.

Files that a third-party library reads of its own accord when imported are not the package's doing and are not counted."""


NEED_TRITON = {"evfi.engine.triton_kernels", "evfi.engine.triton_operators"}
"""Modules that are imported only where a GPU is used; Triton comes with PyTorch's CUDA build alone."""


class TestImportingIsHarmless:
    def test_no_gpu_network_or_disk(self) -> None:
        left_out = {"evfi.__main__"} | NEED_TRITON
        modules = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "evfi.") if info.name not in left_out]
        assert len(modules) > 10
        assert run_python(WATCH, str(PACKAGE), *modules) == []

    def test_nor_do_kernels(self) -> None:
        pytest.importorskip("triton")
        assert run_python(WATCH, str(PACKAGE), *sorted(NEED_TRITON)) == []

    def test_the_watch_notices(self, tmp_path: Path) -> None:
        rude = tmp_path / "rude"
        rude.mkdir()
        (rude / "__init__.py").touch()
        (rude / "reads.py").write_text("open(__file__ + '.txt', 'w').close()", encoding="utf-8")
        (rude / "makes.py").write_text("import os; os.mkdir(__file__ + '.d')", encoding="utf-8")
        (rude / "calls.py").write_text("import socket; socket.getaddrinfo('localhost', 1)", encoding="utf-8")
        (rude / "well_behaved.py").write_text("import json", encoding="utf-8")
        watch = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WATCH}"
        seen = run_python(watch, str(rude), "rude.well_behaved", "rude.reads", "rude.makes", "rude.calls")
        assert seen == [["rude.reads", "open"], ["rude.makes", "os.mkdir"], ["rude.calls", "socket.getaddrinfo"]]


class TestImportingIsLight:
    HEAVY = ("av", "diffusers", "dv_processing", "torch", "transformers", "accelerate", "tensorboard", "triton")

    def loaded(self, statement: str) -> set[str]:
        code = f"{statement}\nimport sys, json\nprint(json.dumps([name for name in {self.HEAVY!r} if name in sys.modules]))"
        return set(run_python(code))

    def test_package_loads_nothing(self) -> None:
        assert self.loaded("import evfi") == set()

    def test_reading_recordings_needs_no_networks(self) -> None:
        assert self.loaded("from evfi import EventStream, open_recording") == set()

    def test_help_is_light(self) -> None:
        """`evfi --help` answers at once; the commands' own help loads no network, video or camera library."""
        code = f"""
        import contextlib, io, json, sys
        from evfi.cli import main

        loaded = {{}}
        for command in ["", "interpolate", "inspect", "demo", "simulate", "benchmark", "train"]:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                main([command, "--help"] if command else ["--help"])
            loaded[command] = sorted(set({self.HEAVY!r}) & set(sys.modules))
        print(json.dumps(loaded))
        """
        loaded = run_python(code)
        assert loaded.pop("") == []
        assert {command: names for command, names in loaded.items() if not set(names) <= {"torch"}} == {}


class TestPublicNames:
    def test_pinned(self) -> None:
        assert set(evfi.__all__) == PUBLIC_NAMES
        assert set(dir(evfi)) == PUBLIC_NAMES

    @pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
    def test_each_can_be_had(self, name: str) -> None:
        assert getattr(evfi, name) is not None

    def test_unknown_name(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'interpolate_all'"):
            _ = evfi.interpolate_all
