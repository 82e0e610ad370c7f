"""Files that are cut, altered, gone, or cannot be written: told, made again, and nothing wrong in the video."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from fault_jobs import FaultJob, Finished, needs_linux, slow, write_recording

pytestmark = needs_linux

WINDOWS = 12


@pytest.fixture(scope="module")
def done(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> FaultJob:
    """A job that is done, to be copied."""
    job = FaultJob(recording, tmp_path_factory.mktemp("done"), seconds=0)
    finished = job.run_here()
    assert finished.status == 0, finished.err
    return job


def half_done(job: FaultJob, wanted: int = 4) -> None:
    """Begin a job and kill it after some windows."""
    slow = FaultJob(job.recording, job.folder, seconds=0.3, workers=job.workers)
    running = slow.start()
    running.wait_until(lambda: len(slow.pieces) >= wanted)
    running.kill()
    running.assert_all_gone()


def assert_refused(finished: Finished, *told: str, status: int = 1) -> None:
    """One line, no traceback."""
    assert finished.status == status, finished.err
    assert "Traceback" not in finished.err
    last = finished.err.splitlines()[-1]
    assert last.startswith("evfi: error: ")
    for text in told:
        assert text in last


# cut and altered files of the job's folder


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file as a power cut or a bad disk may leave it."""
    for length in sorted({0, 1, len(content) // 2, len(content) - 1}):
        yield f"cut to {length}", content[:length]
    for place in np.linspace(0, len(content) - 1, 5).astype(int).tolist():
        yield f"bit flipped at {place}", content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def damaged_in_place(done: FaultJob, folder: Path, file: Path, content: bytes) -> tuple[FaultJob, Finished]:
    """A copy of the job, without its video, with a file altered; and what the command then does."""
    shutil.copytree(done.folder, folder)
    shutil.rmtree(folder / "notes")
    job = FaultJob(done.recording, folder)
    job.video.unlink()
    (folder / file).write_bytes(content)
    return job, job.run_here()


def check_damage(done: FaultJob, folder: Path, file: Path) -> int:
    """Every kind of damage of a file is found or does no harm."""
    content = (done.folder / file).read_bytes()
    number = 0
    for number, (kind, damaged) in enumerate(damages(content), start=1):
        job, finished = damaged_in_place(done, folder / f"{number}", file, damaged)
        what = f"{file} {kind}: {finished.err}"
        assert finished.status == 0, what
        assert file.name == "log.jsonl" or "damaged" in finished.err or is_harmless(content, damaged), what
        assert job.results() == {**done.results()}, what
        assert len(job.pieces) == WINDOWS, what
        made_again = len(list(job.notes.iterdir()))
        assert made_again == (1 if file.suffix == ".zip" else 0), what
        shutil.rmtree(job.folder)
    return number


def is_harmless(before: bytes, after: bytes) -> bool:
    """Whether two JSON texts say the same, in all that counts."""
    import json

    with suppress(ValueError):
        return bool(json.loads(before) == json.loads(after))
    return False


@pytest.mark.parametrize(
    "file",
    ["job.json", "outputs.json", "alignment.json", "log.jsonl", "job.lock", "windows/first", "windows/last"],
)
def test_damaged_files_of_the_job_are_made_again(done: FaultJob, tmp_path: Path, file):
    if file.startswith("windows"):
        file = f"windows/{done.pieces[0 if file.endswith('first') else -1]}"
    place = Path(done.job.name) / file
    if file == "job.lock":
        (done.job / file).write_bytes(b"") if not (done.job / file).exists() else None
        job, finished = damaged_in_place(done, tmp_path / "job", place, b"x" * 100)
        assert finished.status == 0
        assert job.results() == done.results()
        return
    assert check_damage(done, tmp_path, place) >= 5


@pytest.mark.slow
def test_every_file_of_the_job_damaged(done: FaultJob, tmp_path: Path):
    files = [path.relative_to(done.folder) for path in sorted(done.job.rglob("*")) if path.suffix in (".zip", ".json")]
    number = sum(check_damage(done, tmp_path / file.stem, file) for file in files)
    print(f"\n{number} damages of {len(files)} files")


def test_missing_files_of_the_job_are_made_again(done: FaultJob, tmp_path: Path):
    for name in ["job.json", "log.jsonl", "windows"]:
        job = FaultJob(done.recording, shutil.copytree(done.folder, tmp_path / name))
        place = job.job / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        finished = job.run_here()
        assert finished.status == 0, finished.err
        assert job.results() == done.results()


def test_altered_results_are_written_again(done: FaultJob, tmp_path: Path):
    for name in ["video.mp4", "frames/000003.png", "frames/timestamps.txt"]:
        job = FaultJob(done.recording, shutil.copytree(done.folder, tmp_path / name.replace("/", "-")))
        for note in job.notes.iterdir():
            note.unlink()
        # the copy is another place, so the job has to come to know its results first
        shutil.rmtree(job.frames_dir)
        assert job.run_here().status == 0
        place = job.folder / name
        place.write_bytes(place.read_bytes()[:-1])
        finished = job.run_here()
        assert finished.status == 0, finished.err
        assert job.results() == done.results()
        assert list(job.notes.iterdir()) == []


# disks that are full and places that cannot be written any more


def test_file_size_limit_reached(recording, done, tmp_path: Path):
    job = FaultJob(recording, tmp_path / "job")
    limit = (done.job / "windows" / done.pieces[0]).stat().st_size - 2000

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    assert_refused(job.run(preexec_fn=lower), "File too large")
    assert job.leftovers() == []
    assert not job.video.exists()
    assert job.run_here().status == 0
    assert job.results() == done.results()


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[None]:
    """A disk of its own at a folder; skips where none can be mounted."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted here (needs root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("kib", [100, slow(8), slow(500), slow(800)])
def test_disk_full(recording, done, tmp_path: Path, kib):
    job = FaultJob(recording, tmp_path / "job")
    job.notes.rmdir()
    job.folder.rmdir()
    with small_disk(job.folder, kib):
        job.notes.mkdir()
        finished = job.run()
        assert_refused(finished, "No space left on device")
        assert job.leftovers() == []
        kept = job.pieces
        subprocess.run(["mount", "-o", "remount,size=8m", str(job.folder)], check=True)
        finished = job.run_here()
        assert finished.status == 0, finished.err
        assert set(kept) <= set(job.pieces)
        assert job.results() == done.results()


@contextmanager
def not_writable(folder: Path) -> Iterator[None]:
    """Take the right to write into a folder away, from root too; skips where that cannot be done."""
    if os.geteuid() != 0:
        before = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(before)
        return
    command = ["chattr", "+i", str(folder)]
    if shutil.which("chattr") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and chattr does not work here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


@pytest.mark.parametrize("where", ["pieces", slow("results")])
def test_permission_lost_while_writing(recording, done, tmp_path: Path, where):
    job = FaultJob(recording, tmp_path / "job", seconds=0.2)
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 2)
    with not_writable(job.folder if where == "results" else job.job / "windows"):
        finished = running.wait()
        running.assert_all_gone()
        assert_refused(finished, "cannot")
    kept = job.pieces
    assert len(kept) >= 2
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert set(kept) <= set(job.pieces)
    assert job.results() == done.results()
    assert job.leftovers() == []


# the recording's files


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("frames/000009.png", "changed"),
        slow("frames/000009.png", "gone"),
        slow("events.npz", "changed"),
        slow("events.npz", "gone"),
    ],
)
def test_input_lost_during_the_run(recording, done, tmp_path: Path, name, how):
    own = shutil.copytree(recording, tmp_path / "scene")
    job, file = FaultJob(own, tmp_path / "job", seconds=0.2), own / name
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 2)
    aside = file.rename(tmp_path / "aside")
    if how == "changed":
        file.write_bytes(aside.read_bytes()[:-1] + b"!")
    finished = running.wait()
    running.assert_all_gone()
    assert_refused(finished, str(file), "run the same command again")
    assert not job.video.exists()
    assert job.leftovers() == []
    if how == "changed":
        assert job.run_here().status in (1, 2)
        assert not job.video.exists()
    aside.rename(file)
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert job.results() == done.results()


def test_picture_changed_while_the_video_is_put_together(recording, done, tmp_path: Path):
    own = shutil.copytree(recording, tmp_path / "scene")
    job = FaultJob(own, tmp_path / "job", more=["--no-report", "--encoder-speed", "placebo", "--codec", "h265"])
    file = own / "frames" / f"{WINDOWS:06d}.png"
    shutil.copy2(file, tmp_path / "aside")
    running = job.start()
    running.wait_until(lambda: len(job.pieces) == WINDOWS)
    shutil.copyfile(own / "frames" / "000000.png", file)
    finished = running.wait()
    if finished.status != 0:
        assert_refused(finished, str(file), "changed")
        assert not job.video.exists()
        assert not job.frames_dir.exists()
    else:  # too late to matter
        assert (job.frames_dir / f"{4 * WINDOWS:06d}.png").read_bytes() == (
            done.frames_dir / f"{4 * WINDOWS:06d}.png"
        ).read_bytes()


@pytest.mark.parametrize("name", ["frames/000009.png", slow("events.npz"), slow("timestamps.txt")])
def test_input_changed_before_the_next_run(recording, done, tmp_path: Path, name):
    own = shutil.copytree(recording, tmp_path / "scene")
    job, file = FaultJob(own, tmp_path / "job"), own / name
    half_done(job)
    content = file.read_bytes()
    if name == "timestamps.txt":
        file.write_bytes(content.replace(b"1360000", b"1360001"))
    elif name == "events.npz":
        shutil.copyfile(write_recording(tmp_path / "other", WINDOWS, seed=1) / name, file)
    else:
        shutil.copyfile(own / "frames" / "000008.png", file)
    kept = job.pieces
    assert_refused(job.run_here(), "the job in", "was started with other settings: recording was", status=2)
    assert job.pieces == kept
    file.write_bytes(content)
    os.utime(file, (time.time() + 1e6,) * 2)  # a clock that was set back since
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert job.results() == done.results()


def test_damaged_picture_fails_its_windows_and_no_others(recording, done, tmp_path: Path):
    own = shutil.copytree(recording, tmp_path / "scene")
    job, files = FaultJob(own, tmp_path / "job"), [own / "frames" / f"{number:06d}.png" for number in (6, 9)]
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[0][: len(contents[0]) // 2])
    files[1].write_bytes(b"")
    told = [f"4 of {WINDOWS} windows failed: window 5: ", "; window 6: ", str(files[0]), "All others are kept"]
    assert_refused(job.run(), *told)
    assert len(job.pieces) == WINDOWS - 4
    assert job.leftovers() == []
    for note in job.notes.iterdir():
        note.unlink()

    files[0].write_bytes(contents[0])
    assert_refused(job.run_here(), f"2 of {WINDOWS} windows failed: window 8: ", str(files[1]))
    assert set(job.attempts()) == {5, 6}
    files[0].write_bytes(contents[1])  # windows were made from it meanwhile
    assert_refused(job.run_here(), "recording was", status=2)
    files[0].write_bytes(contents[0])
    files[1].write_bytes(contents[1])
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert job.results() == done.results()
    assert set(job.attempts()) == {5, 6, 8, 9}
    files[1].write_bytes(contents[0])
    assert_refused(job.run_here(), "recording was", status=2)


def test_times_that_go_backwards_are_refused(recording, tmp_path: Path):
    own = shutil.copytree(recording, tmp_path / "scene")
    lines = (own / "timestamps.txt").read_text().splitlines()
    lines[4], lines[5] = lines[5], lines[4]
    (own / "timestamps.txt").write_text("\n".join(lines) + "\n")
    finished = FaultJob(own, tmp_path / "job").run_here()
    assert_refused(finished, "timestamps.txt" if "timestamps.txt" in finished.err else str(own), "increas")


def test_events_whose_clock_goes_backwards_are_refused_or_told(recording, tmp_path: Path):
    own = shutil.copytree(recording, tmp_path / "scene")
    with np.load(own / "events.npz") as stored:
        columns = {name: stored[name] for name in stored.files}
    columns["t"][600:] -= 200_000
    np.savez(own / "events.npz", **columns)
    finished = FaultJob(own, tmp_path / "job").run_here()
    assert finished.status == 1 or "warning" in finished.err, finished
    print(finished.err)


@pytest.mark.slow
def test_clock_set_back_between_runs(recording, done, tmp_path: Path):
    job = FaultJob(recording, tmp_path / "job")
    half_done(job)
    kept = job.pieces
    future = time.time() + 1e7
    for path in job.job.rglob("*"):
        os.utime(path, (future, future))
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert set(kept) <= set(job.pieces)
    assert job.results() == done.results()
