"""A job's folder: whose it is, what differs, what is damaged, and who is at work on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evfi.errors import ConfigError, OutputError
from evfi.fingerprints import fingerprint_of
from evfi.pipeline.damaged_pictures import DamagedPictures
from evfi.pipeline.job_folder import JobDescription, JobFolder, check_job_folder
from hostile_json import HOSTILE_JSON

MADE_OF = {
    "recording": "a" * 64,
    "model": "evfi-tiny",
    "model files": "b" * 64,
    "sampling": {"num_inference_steps": 25, "tile": {"width": 512}},
    "seed": 0,
}
WINDOWS = ((0, 0, 1, (0, 20, 40)), (1, 1, 2, (40, 60, 80)))
JOB = JobDescription(MADE_OF, WINDOWS)


def claim(path: Path, job: JobDescription = JOB, *, fresh: bool = False) -> list[str]:
    with JobFolder(path) as folder:
        return folder.claim(job, fresh=fresh)


@contextmanager
def another_process(path: Path, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """A process that is at work on a job."""
    code = (
        "import sys; from pathlib import Path; from evfi.pipeline.job_folder import JobFolder\n"
        f"with JobFolder(Path({str(path)!r}), {shard!r}): print('working', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        yield
    finally:
        process.kill()
        process.communicate()


class TestLinks:
    @pytest.mark.parametrize("name", ["windows", "damaged"])
    @pytest.mark.parametrize("fresh", [False, True])
    def test_folders_of_another_job_are_not_touched(self, tmp_path, name, fresh):
        for job in ("a", "b"):
            claim(tmp_path / job)
        (tmp_path / "a" / name).mkdir()
        files = [tmp_path / "a" / name / f"{'5' * 64}.file", tmp_path / "a" / name / f"000000-{'5' * 24}.zip"]
        for file in files:
            file.write_text("x")
        (tmp_path / "b" / name).symlink_to(Path("..") / "a" / name)
        with pytest.raises(
            OutputError, match=f"its {name}/ is a link, which may lead to another job; replace it with a folder"
        ):
            claim(tmp_path / "b", fresh=fresh)
        assert [file.read_text() for file in files] == ["x", "x"]

    @pytest.mark.parametrize("name", ["job.json", "outputs.json", "alignment.json", "evfi-job.json", "log.jsonl"])
    def test_pipes_are_moved_aside(self, tmp_path, name, in_time):
        claim(tmp_path / "job")
        (tmp_path / "job" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "job" / name)
        with JobFolder(tmp_path / "job") as folder:
            folder.claim(JOB)
            folder.log("begun")
            assert folder.results() == {}
            folder.keep_results({})
            folder.keep_advice("a", [])
        assert (tmp_path / "job" / f"{name}.unusable").is_fifo()
        assert (tmp_path / "job" / name).is_file()


class TestClaim:
    def test_a_new_folder_and_the_same_job_again(self, tmp_path):
        path = tmp_path / "a" / "job"
        assert claim(path) == []
        content = (path / "job.json").read_bytes()
        assert claim(path) == []
        assert (path / "job.json").read_bytes() == content
        assert json.loads(content)["made_of"] == MADE_OF

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"seed": 7}, "seed was 0, is 7"),
            ({"model": "vdm-evfi"}, "model was evfi-tiny, is vdm-evfi"),
            ({"recording": "c" * 64}, "recording was aaaaaaaa…, is cccccccc…"),
            ({"sampling": {"num_inference_steps": 5, "tile": {"width": 512}}}, "num_inference_steps was 25, is 5"),
            (
                {"sampling": {"num_inference_steps": 25, "tile": {"width": None}}},
                "sampling tile width was 512, is not set",
            ),
            ({"precision": "float16"}, "precision was not set, is float16"),
            ({"version of pixels": 2}, "version of pixels was not set, is 2"),  # begun before there were any
        ],
    )
    def test_another_setting_is_named(self, tmp_path, other, message):
        claim(tmp_path / "job")
        with pytest.raises(ConfigError, match="was started with other settings: ") as failed:
            claim(tmp_path / "job", replace(JOB, made_of={**MADE_OF, **other}))
        assert message in str(failed.value)
        assert "--job" in str(failed.value)
        assert "--fresh" in str(failed.value)

    def test_other_windows_are_named(self, tmp_path):
        claim(tmp_path / "job")
        with pytest.raises(
            ConfigError, match=r"were 2 frames in 2 windows from 0 to 80 µs, are 1 frames in 1 windows from 0 to 40 µs"
        ):
            claim(tmp_path / "job", replace(JOB, windows=WINDOWS[:1]))

    def test_many_differences_are_counted(self, tmp_path):
        claim(tmp_path / "job")
        with pytest.raises(ConfigError, match="and 3 more"):
            claim(tmp_path / "job", replace(JOB, made_of={str(number): number for number in range(1)}))

    def test_fresh_throws_the_job_away_and_nothing_else(self, tmp_path):
        path = tmp_path / "job"
        claim(path)
        windows = path / "windows"
        windows.mkdir()
        (windows / f"000001-{'0' * 24}.zip").touch()
        (windows / "mine.txt").touch()
        with JobFolder(path) as folder:
            folder.keep_results({"a": {"film": "1", "content": "2"}})
        assert claim(path, replace(JOB, made_of={}), fresh=True) == []
        assert [file.name for file in windows.iterdir()] == ["mine.txt"]
        with JobFolder(path) as folder:
            assert list(folder.results()) == ["a"]  # so that it may be replaced

    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        for number, name in enumerate(["notes.txt", "poetry.lock", "windows"]):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / name).touch()
            with pytest.raises(OutputError, match="is not a job folder: it holds other files"):
                claim(folder, fresh=True)
            assert [file.name for file in folder.iterdir()] == [name]
        with pytest.raises(OutputError, match="a file with that name exists"):
            claim(tmp_path / "0" / "notes.txt")

    def test_an_empty_folder_is_taken(self, tmp_path):
        (tmp_path / "job").mkdir()
        assert claim(tmp_path / "job") == []


class TestDamage:
    @settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.data())
    def test_a_truncated_description_is_told_and_written_again(self, tmp_path, data):
        path = tmp_path / "job"
        claim(path)
        file = path / "job.json"
        content = file.read_bytes()
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])  # the last is a line break
        (problem,) = claim(path)
        assert "job.json: damaged" in problem
        assert "it is written again" in problem
        assert file.read_bytes() == content
        assert claim(path) == []

    @settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.data())
    def test_truncated_results_are_not_known(self, tmp_path, data):
        path, known = tmp_path / "job", {"/a.mp4": {"film": "1", "content": "2"}}
        with JobFolder(path) as folder:
            folder.keep_results(known)
            assert folder.results() == known
            content = (path / "outputs.json").read_bytes()
            (path / "outputs.json").write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])
            assert folder.results() == {}
            assert "outputs.json: damaged" in folder.results_problems()[0]

    @pytest.mark.parametrize(
        "content",
        [b"[]", b"7", b"null", b'{"format": "evfi-job"}', b"\xff\xfe", b"[" * 100_000, b'{"format": 1, "version": 1}'],
    )
    def test_what_is_no_description(self, tmp_path, content):
        claim(tmp_path / "job")
        (tmp_path / "job" / "job.json").write_bytes(content)
        assert len(claim(tmp_path / "job")) == 1
        assert claim(tmp_path / "job") == []

    def test_an_altered_description_is_damaged(self, tmp_path):
        claim(tmp_path / "job")
        file = tmp_path / "job" / "job.json"
        file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
        assert "checksum" in claim(tmp_path / "job")[0]


class TestLock:
    def test_only_one_process_works_on_a_job(self, tmp_path):
        path = tmp_path / "job"
        with another_process(path):
            for shard in (None, (1, 2)):
                with pytest.raises(OutputError, match="another process is working on this job"), JobFolder(path, shard):
                    pass
        with JobFolder(path):  # free again, though that process was killed
            pass

    def test_shards_work_side_by_side(self, tmp_path):
        path = tmp_path / "job"
        with another_process(path, (1, 2)):
            with JobFolder(path, (2, 2)):
                pass
            for shard in (None, (1, 2)):
                with pytest.raises(OutputError, match="shard-1-of-2"), JobFolder(path, shard):
                    pass
        with JobFolder(path, (1, 2)):
            pass

    def test_a_refused_run_holds_nothing(self, tmp_path):
        with JobFolder(tmp_path, (1, 2)):
            with pytest.raises(OutputError), JobFolder(tmp_path):
                pass
            with JobFolder(tmp_path, (2, 2)):  # would meet a whole run's lock
                pass


def test_the_log_says_what_happened(tmp_path):
    with JobFolder(tmp_path / "job") as folder:
        folder.log("begun", missing=3)
        folder.log("done", place=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "job" / "log.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["begun", "done"]
    assert lines[0]["missing"] == 3
    assert {"at", "host", "pid"} < set(lines[0])


def test_removal_takes_the_folder_with_it_unless_others_use_it(tmp_path):
    for name in ("job", "shared"):
        claim(tmp_path / name)
    (tmp_path / "shared" / "mine.txt").touch()
    for name in ("job", "shared"):
        with JobFolder(tmp_path / name) as folder:
            folder.log("x")
            folder.remove()
    assert not (tmp_path / "job").exists()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["mine.txt"]


class TestHostileFiles:
    @pytest.mark.parametrize("file", ["job.json", "outputs.json"])
    @pytest.mark.parametrize("name", HOSTILE_JSON)
    def test_they_count_as_damaged(self, tmp_path: Path, file: str, name: str):
        path = tmp_path / "job"
        claim(path)
        (path / file).write_bytes(HOSTILE_JSON[name])
        with JobFolder(path) as folder:
            problems = folder.claim(JOB) + folder.results_problems()
            assert folder.results() == {}
        assert len(problems) == 1
        assert "damaged" in problems[0]

    @pytest.mark.parametrize("name", HOSTILE_JSON)
    def test_they_make_no_job(self, tmp_path: Path, name: str):
        for file in ("evfi-job.json", "job.json", "outputs.json", "log.jsonl"):
            folder = tmp_path / file.partition(".")[0]
            folder.mkdir()
            (folder / file).write_bytes(HOSTILE_JSON[name])
            with pytest.raises(OutputError, match="is not a job folder"):
                check_job_folder(folder)

    @pytest.mark.parametrize("windows", [[], 5, "abcd", [[0, 0, 1, []]], [[0, 0, 1, ["a", "b"]]], [[0, 0, 1]]])
    def test_descriptions_with_a_checksum_that_fits(self, tmp_path: Path, windows: object):
        path = tmp_path / "job"
        claim(path)
        content = {**json.loads((path / "job.json").read_text()), "windows": windows}
        content["fingerprint"] = fingerprint_of([content["made_of"], windows])
        (path / "job.json").write_text(json.dumps(content))
        (problem,) = claim(path)
        assert "job.json: damaged" in problem

    @pytest.mark.parametrize("results", [[], 5, {"a": 5}, {"a\0b": {}}])
    def test_results_with_a_checksum_that_fits(self, tmp_path: Path, results: object):
        path = tmp_path / "job"
        claim(path)
        content = {"format": "evfi-job", "version": 1, "results": results, "fingerprint": fingerprint_of(results)}
        (path / "outputs.json").write_text(json.dumps(content))
        with JobFolder(path) as folder:
            assert folder.results() == {}
            assert len(folder.results_problems()) == 1


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_notes_of_damaged_pictures_are_passed_over(tmp_path: Path, name: str):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / f"{'0' * 64}.json").write_bytes(HOSTILE_JSON[name])
    assert DamagedPictures(tmp_path, [tmp_path / "recording"]).stand_ins() == {}
