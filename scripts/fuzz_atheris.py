"""Let coverage choose what to damage: atheris (libFuzzer) on every parser of bytes.

    pip install atheris==3.0.0            # Python 3.11 to 3.13, Linux; no dependency of the project
    python scripts/fuzz_atheris.py --seconds 60 --findings FOLDER

Each target begins with the small files of `tests/file_writers/samples.py`, or a few lines of its own, and keeps what
reaches new branches of `evfi`. Files of events and recordings are judged as by `fuzz_formats.py`; YAML, JSON, homographies
and times must give a value, or one line of error. Compiled loops check their bounds here. A target runs in a process of its
own; where that crashes, hangs or takes too much memory, the input is kept in the folder of findings and another process
goes on. A finding is repeated by `--only TARGET --repeat FILE`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import fuzzing
from file_writers.samples import SAMPLES

MEMORY_LIMIT_MIB: Final = 2048
"""Of the process as a whole, which takes some 400 MiB at rest."""
FILES: Final = {
    "aedat4": ("aedat4", "*.aedat4"),
    "mcap": ("rosbag", "*.mcap"),
    "ros1": ("rosbag", "*.bag"),
    "ros2-sqlite": ("rosbag", "*.db3"),
    "prophesee-raw": ("prophesee-raw", "*.raw"),
    "prophesee-dat": ("prophesee-dat", "*.dat"),
    "es": ("es", "*.es"),
    "text": ("text", "*.txt"),
    "csv": ("text", "*.csv"),
    "npz": ("npz", "*.npz"),
}
"""Targets that are files: which samples they begin with."""
HAVE_FRAMES: Final = ("aedat4", "mcap", "ros1", "ros2-sqlite")
LINES: Final = {
    "yaml": (
        b"%YAML:1.0\n---\na: !!opencv-matrix\n  data: [1, .5, -0x1f, .inf, ~]\n",
        b"x: &a {k: 'v', <<: *a}\n- |+\n  t\n",
    ),
    "json": (b'{"a": [1, -2.5e3, true, null, "\\u00e9"], "b": {"c": ""}}', b"[[1,0,0],[0,1,0],[0,0,1]]"),
    "homography": (b"1 0 0\n0 1 0\n0 0 1\n", b"[[1, 0, 0], [0, 1.5, 0], [0.001, 0, 1]]", b"1,0,0,0,1,0,0,0,1"),
    "timestamps": (b"# times\n1000\n2000\n", b"\xef\xbb\xbf0.001\n0.002\n1e-1\n"),
    "times": (b"# times\n1000\n2000\n", b"-5\n+7\n"),
    "bag-metadata": (
        b"rosbag2_bagfile_information:\n  compression_mode: ''\n  relative_file_paths:\n  - bag/x_0.mcap\n",
    ),
}
TARGETS: Final = (*FILES, *LINES)


def judged_text(name: str, path: Path) -> fuzzing.Outcome:
    """Read a file of a target in `LINES`."""
    from evfi.errors import EvfiError, escaped

    try:
        READERS[name](path)
    except (EvfiError, ValueError) as error:
        is_ours = isinstance(error, EvfiError) or name in ("yaml", "json")
        text = escaped(str(error))
        if not is_ours or not text or len(text) > 5000:
            return fuzzing.Outcome("exception", f"{type(error).__name__}: {text[:200]}")
        return fuzzing.Outcome("refused", text)
    except Exception as error:
        return fuzzing.Outcome("exception", f"{type(error).__name__}: {error}")
    return fuzzing.Outcome("read")


def _read_yaml(path: Path) -> None:
    from evfi.safe_yaml import parse_yaml

    parse_yaml(path.read_text("utf-8", "replace"))


def _read_json(path: Path) -> None:
    from evfi.plain_json import loads

    loads(path.read_bytes())


def _read_homography(path: Path) -> None:
    from evfi.recordings.alignment import covers_frame, read_homography

    covers_frame(read_homography(path), (64, 48), (64, 48))


def _read_timestamps(path: Path) -> None:
    from evfi.recordings.timestamps import read_timestamps

    read_timestamps(path, "s", num_frames=None)


def _read_times(path: Path) -> None:
    from evfi.pipeline.job_plan import read_times

    read_times(path)


def _read_metadata(path: Path) -> None:
    from evfi.events.formats.bags import Bag

    path.replace(path.with_name("metadata.yaml"))
    Bag(path.parent)


READERS: Final[dict[str, Callable[[Path], None]]] = {
    "yaml": _read_yaml,
    "json": _read_json,
    "homography": _read_homography,
    "timestamps": _read_timestamps,
    "times": _read_times,
    "bag-metadata": _read_metadata,
}


def write_seeds(name: str, folder: Path) -> None:
    """Write what a target begins with."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(LINES.get(name, ())):
        (folder / f"seed-{number}").write_bytes(content)
    if name in FILES:
        samples, pattern = FILES[name]
        with tempfile.TemporaryDirectory() as scratch:
            SAMPLES[samples](Path(scratch))
            for path in Path(scratch).glob(pattern):
                (folder / path.name).write_bytes(path.read_bytes())


def fuzz(name: str, corpus: Path, findings: Path, seconds: int) -> None:
    """Run libFuzzer on a target; it ends the process."""
    os.environ |= {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(corpus.parent / "compiled"),
        "EVFI_CACHE": str(corpus.parent),
    }
    import atheris

    with atheris.instrument_imports(include=["evfi"]):
        import evfi.pipeline.job_plan
        import evfi.recordings.opening  # noqa: F401
    scratch = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    suffix = FILES[name][1][1:] if name in FILES else ""
    known: set[str] = set()
    for seed in sorted(corpus.iterdir()):
        (scratch / f"case{suffix}").write_bytes(seed.read_bytes())
        judge(name, scratch / f"case{suffix}")  # compiles and imports before time counts

    def try_one(data: bytes) -> None:
        path = scratch / f"case{suffix}"
        path.write_bytes(data)
        outcome = judge(name, path)
        place = re.sub(r"\d+|'.*'", "", outcome.detail)
        if outcome.is_failure and place not in known:
            known.add(place)
            (findings / f"{name}-{len(list(findings.iterdir()))}").write_bytes(data)
            print(f"FOUND {outcome.kind}: {outcome.detail}", flush=True)

    options = [
        f"-max_total_time={seconds}",
        f"-timeout={int(fuzzing.TIME_LIMIT_S)}",
        f"-rss_limit_mb={MEMORY_LIMIT_MIB}",
    ]
    artifacts = f"-artifact_prefix={findings}/{name}-"
    atheris.Setup([sys.argv[0], *options, artifacts, "-print_final_stats=1", str(corpus)], try_one)
    atheris.Fuzz()


def judge(name: str, path: Path) -> fuzzing.Outcome:
    """Read a target's file."""
    if name in LINES:
        return judged_text(name, path)
    return fuzzing.judge(fuzzing.Written(path, has_frames=name in HAVE_FRAMES))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", choices=TARGETS, action="append", help="these targets alone")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder for inputs that failed")
    parser.add_argument("--corpus", type=Path, help="folder where what reaches new branches is kept for the next run")
    parser.add_argument("--repeat", type=Path, help="read one file and say what came of it")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.only or list(TARGETS)
    if arguments.repeat:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"case{FILES[names[0]][1][1:] if names[0] in FILES else ''}"
            copy.write_bytes(arguments.repeat.read_bytes())
            print(judge(names[0], copy))
        return 0
    if arguments.in_this_process:
        fuzz(names[0], arguments.corpus / names[0], arguments.findings, arguments.seconds)
    arguments.findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = arguments.corpus or Path(folder)
        print("| target | executions | inputs kept | findings |\n|---|---|---|---|")
        return sum([run(name, corpus, arguments.findings, arguments.seconds) for name in names]) > 0


def run(name: str, corpus: Path, findings: Path, seconds: int) -> int:
    """Fuzz a target for so many seconds, in as many processes as it takes; print a row, return how many findings."""
    write_seeds(name, corpus / name)
    num_done = num_found = 0
    end = time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 5 or not num_done:
        command = [sys.executable, __file__, "--in-this-process", "--only", name, "--seconds", str(max(left, 5))]
        command += ["--corpus", str(corpus), "--findings", str(findings)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        log = done.stdout + done.stderr
        told = [
            int(number)
            for number in re.findall(r"stat::number_of_executed_units: (\d+)|^#(\d+)\s", log, re.M)
            for number in number
            if number
        ]
        num_done += max(told, default=0)
        found = [line for line in log.splitlines() if line.startswith(("FOUND", "SUMMARY", "==", "Traceback"))]
        num_found += sum(line.startswith("FOUND") for line in found) + (done.returncode != 0)
        for line in found if found or not done.returncode else log.splitlines()[-20:]:
            print(f"{name}: {line}", file=sys.stderr, flush=True)
        if not told:
            break
    print(f"| {name} | {num_done:,} | {len(list((corpus / name).iterdir()))} | {num_found} |", flush=True)
    return num_found


if __name__ == "__main__":
    sys.exit(main())
