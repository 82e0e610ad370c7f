"""A run's folder: whose it is, what it may not take the place of, what is left after kills, full disks and damage."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
from test_loop import assert_same_states, autoencoder, base, refiner

from evfi.errors import ConfigError, InputError, OutputError
from evfi.training import checkpoint, loop
from evfi.training.config import AutoencoderTraining
from evfi.training.loop import train
from test_cli import write_recording
from test_files import killed_while_writing
from test_no_loss import Untouched, contents


def settings(textures: Path, output: Path, **changes: Any) -> AutoencoderTraining:
    """A run of four steps with states after 2 and 4."""
    given = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, **changes}
    return autoencoder(textures, output.parent, output=output, **given)


@pytest.fixture(scope="session")
def finished(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(settings(textures, folder)).finished
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def halfway(run: Path) -> Path:
    """The same as after a kill in step 3."""
    shutil.rmtree(run / "states" / "step-0000004")
    shutil.rmtree(run / "model")
    (run / "samples" / "step-0000004.png").unlink()
    return run


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(loop, "load_textures", work)


def make_old(run: Path) -> None:
    """Let a run's folder look as it did before there were marks and checksums."""
    for name in ("evfi-run.json", "model.json", "run.lock"):
        (run / name).unlink()
    for state in (run / "states").iterdir():
        (state / "state.json").write_text(json.dumps({"step": int(state.name[5:])}))


def leftovers(run: Path) -> list[str]:
    return [path.name for path in run.rglob("*") if path.name.endswith((".part", ".unusable"))]


class TestWhoseItIs:
    @pytest.mark.parametrize(
        "name",
        [
            *("config.json", "metrics.jsonl", "curves.png", "samples/step-0000002.png", "model/vae/config.json"),
            *("states/step-0000002/state.json", ".step-0000002.partial/mine", "run.lock", "evfi-run.json"),
        ],
    )
    def test_anybodys_folder_is_not_taken(self, textures, tmp_path, no_work, name):
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True)
        file.write_text('{"model_type": "mine", "stage": "final", "step": 2}')
        with Untouched(tmp_path), pytest.raises(OutputError, match="is not a training run's folder"):
            train(settings(textures, tmp_path / "run"))

    def test_an_empty_folder_is_taken(self, textures, tmp_path):
        (tmp_path / "run").mkdir()
        assert train(settings(textures, tmp_path / "run", steps=1)).finished
        assert json.loads((tmp_path / "run" / "evfi-run.json").read_text())["format"] == "evfi-training-run"

    @pytest.mark.parametrize("lost", ["", "states", "model", "metrics.jsonl"])
    def test_a_folder_from_before_the_mark_goes_on(self, textures, finished, halfway, lost):
        make_old(halfway)
        if (halfway / lost).is_dir() and lost:
            shutil.rmtree(halfway / lost)
        elif lost:
            (halfway / lost).unlink(missing_ok=True)
        assert train(settings(textures, halfway)).finished
        assert_same_states(finished, halfway)
        assert (halfway / "evfi-run.json").is_file()

    def test_without_its_settings_it_is_refused(self, textures, run, no_work):
        (run / "config.json").write_text('{"mine": 1}')
        with Untouched(run), pytest.raises(InputError, match="cannot be read or is not a run's"):
            train(settings(textures, run))

    def test_two_at_once(self, textures, tmp_path):
        config, told = settings(textures, tmp_path / "run", steps=1), []

        def second(*_: object) -> None:
            with pytest.raises(OutputError, match="another process is training in") as refused:
                train(config)
            told.append(str(refused.value))

        train(config, on_step=second)
        assert len(told) == 1


class TestWhatIsRead:
    """Refused before any work, and everything stays as it is."""

    def test_pictures(self, textures, tmp_path, no_work):
        shutil.copytree(textures, tmp_path / "t")
        inside = tmp_path / "t" / "textures" / "run"
        with Untouched(tmp_path), pytest.raises(OutputError, match="would become part of the texture library"):
            train(settings(tmp_path / "t", inside))
        for place in (tmp_path / "t", tmp_path / "t" / "textures"):
            with Untouched(tmp_path), pytest.raises(OutputError, match="is not a training run's folder"):
                train(settings(tmp_path / "t", place))

    def test_beside_the_pictures_it_may_be(self, textures, tmp_path):
        shutil.copytree(textures, tmp_path / "t")
        for _ in range(2):
            assert train(settings(tmp_path / "t", tmp_path / "t" / "run", steps=1)).finished

    @pytest.mark.parametrize("spelling", ["itself", "link"])
    def test_init(self, textures, run, tmp_path, no_work, spelling):
        init = run / "model"
        if spelling == "link":
            init = tmp_path / "link"
            init.symlink_to(run / "model")
        with Untouched(run), pytest.raises(OutputError, match="the model given as --init is read from it"):
            train(settings(textures, run, init=init))
        with pytest.raises(OutputError, match="would become part of the model given as --init"):
            train(base(textures, tmp_path, init=run, output=run / "next"))

    def test_lossy_autoencoder(self, textures, run, tmp_path, no_work):
        shutil.rmtree(run / "states")  # of another stage
        config = refiner(textures, tmp_path, init=tmp_path / "m", output=run, lossy_autoencoder=run / "model")
        with Untouched(run), pytest.raises(OutputError, match="given as --lossy-autoencoder is read from it"):
            train(config)

    def test_validation(self, textures, run, tmp_path, no_work):
        shutil.rmtree(run / "states")  # of another stage
        recording = write_recording(run / "r")
        config = refiner(textures, tmp_path, init=tmp_path / "m", output=run, validation=(recording,))
        with Untouched(run), pytest.raises(OutputError, match="the recording is read from it"):
            train(config)
        shutil.move(recording, tmp_path / "r")
        shutil.move(tmp_path / "r" / "events.npz", run / "events.npz")
        (tmp_path / "r" / "events.npz").symlink_to(run / "events.npz")
        with Untouched(run), pytest.raises(OutputError, match="the recording is read from it"):
            train(refiner(textures, tmp_path, init=tmp_path / "m", output=run, validation=(tmp_path / "r",)))


class TestOthersFilesInARunsFolder:
    @pytest.mark.parametrize(
        "name",
        [
            *("metrics.jsonl", "curves.png", "samples/step-0000004.png", "model", "model.json", "evfi-run.json"),
            *("model/mine.txt", "states/step-0000004/mine.txt", "states/step-0000004/state.json"),
            *("states/step-0000002/mine.txt", "states/.step-0000004.partial/mine.txt"),
        ],
    )
    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_they_are_kept(self, textures, finished, halfway, tmp_path, name, kind):
        place = halfway / name
        place.unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        (tmp_path / "mine.txt").write_text("mine")
        place.symlink_to(tmp_path / "mine.txt") if kind == "link" else place.write_text("mine")
        assert train(settings(textures, halfway, keep_checkpoints=1)).finished
        assert (tmp_path / "mine.txt").read_text() == "mine"
        expected = str(tmp_path / "mine.txt") if kind == "link" else b"mine"
        assert expected in contents(halfway).values()
        if not name.startswith("states/step-0000002"):
            assert_same_states(finished, halfway)
        for made in (
            "states/step-0000004/state.json",
            "samples/step-0000004.png",
            "model/vae/config.json",
        ):
            assert (halfway / made).read_bytes() == (finished / made).read_bytes()

    def test_a_model_that_was_changed_is_moved_aside(self, textures, run, caplog):
        weights = run / "model" / "vae" / "diffusion_pytorch_model.safetensors"
        before = weights.read_bytes()
        weights.write_bytes(before + b" ")
        train(settings(textures, run))
        assert weights.read_bytes() == before
        assert (run / "model.unusable" / "vae" / weights.name).read_bytes() == before + b" "
        assert "it was moved aside to model.unusable" in caplog.text

    def test_an_earlier_model_is_replaced(self, textures, finished, tmp_path):
        train(settings(textures, tmp_path / "run", max_minutes=0.0))
        before = contents(tmp_path / "run" / "model")
        assert train(settings(textures, tmp_path / "run")).finished
        assert contents(tmp_path / "run" / "model") == contents(finished / "model") != before
        assert leftovers(tmp_path / "run") == []


class TestFaults:
    def test_killed_while_a_state_was_written(self, textures, finished, halfway):
        killed_while_writing(halfway / "states" / "step-0000004")
        killed_while_writing(halfway / "model")
        assert train(settings(textures, halfway)).finished
        assert_same_states(finished, halfway)
        assert leftovers(halfway) == []

    @pytest.mark.parametrize(
        "error", [SafetensorError("No space left on device"), OSError(28, "No space left on device")]
    )
    def test_disk_full(self, textures, finished, halfway, monkeypatch, error):
        def full(tensors: Any, file: Path) -> None:
            file.write_bytes(b"half")
            raise error

        before = contents(halfway / "states")
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save_file", full)
            with pytest.raises(OutputError, match=r"No space left on device; .* Earlier saved states are safe"):
                train(settings(textures, halfway))
        assert contents(halfway / "states") == before
        assert leftovers(halfway) == []
        assert train(settings(textures, halfway)).finished
        assert_same_states(finished, halfway)

    def test_killed_in_the_middle_of_a_line(self, textures, halfway):
        with (halfway / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        train(settings(textures, halfway))
        lines = (halfway / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines[lines.index('{"step": 4, "lo') + 1 :]] == [3, 4, 4]


def cut(state: Path) -> None:
    file = state / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-20])


def flip_a_bit(state: Path) -> None:
    content = bytearray((state / "state.safetensors").read_bytes())
    content[-3] ^= 1
    (state / "state.safetensors").write_bytes(content)


def empty(state: Path) -> None:
    (state / "state.json").write_text("")


def nested(state: Path) -> None:
    (state / "state.json").write_text("[" * 4000)


def endless(state: Path) -> None:
    (state / "state.json").write_text('{"step": 1e999}')


def another_step(state: Path) -> None:
    (state / "state.json").write_text('{"step": 3}')


def lose(state: Path) -> None:
    (state / "state.json").unlink()


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty, nested, endless, another_step, lose])
def test_a_damaged_state_is_told_and_the_one_before_counts(
    textures: Path, finished: Path, run: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    damage(run / "states" / "step-0000004")
    damaged = contents(run / "states" / "step-0000004")
    with caplog.at_level(logging.WARNING):
        assert train(settings(textures, run)).finished
    (line,) = [record.getMessage() for record in caplog.records if "cannot be resumed" in record.getMessage()]
    assert "moved aside to step-0000004.unusable, training resumes from step 2" in line
    assert_same_states(finished, run)
    assert contents(run / "states" / "step-0000004.unusable") == damaged


def test_where_all_states_are_damaged_nothing_is_done(textures: Path, run: Path) -> None:
    for state in (run / "states").iterdir():
        flip_a_bit(state)
    before = contents(run / "states")
    with pytest.raises(InputError, match=r"its checksum does not match.* every other one .* to start over") as refused:
        train(settings(textures, run))
    assert "\n" not in str(refused.value)
    assert contents(run / "states") == before


def test_settings_are_compared_where_the_latest_state_is_damaged(textures: Path, run: Path) -> None:
    cut(run / "states" / "step-0000004")
    with Untouched(run), pytest.raises(ConfigError, match=r"learning_rate was 0.0008, is 0.1"):
        train(settings(textures, run, learning_rate=0.1))


def test_states_of_before_checksums_are_read(textures: Path, run: Path) -> None:
    make_old(run)
    steps: list[int] = []
    train(settings(textures, run), on_step=lambda step, *_: steps.append(step))
    assert steps == []
    save_file({}, run / "states" / "step-0000004" / "state.safetensors")
    train(settings(textures, run), on_step=lambda step, *_: steps.append(step))
    assert steps == [3, 4]
