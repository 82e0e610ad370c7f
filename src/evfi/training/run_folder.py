"""A training run's folder: known by its mark, held by one run at a time, and nothing of somebody else's in it is lost.

    RUN/evfi-run.json    the mark of such a folder; older folders are known by the content of config.json or of a state
    RUN/config.json      every setting
    RUN/model.json       checksums of the files in model/, so that a later export replaces what a run wrote and nothing else
    RUN/run.lock         held by the process that trains

What else it holds is described in `loop`. What has a name of the run's and is not known as the run's is moved aside
(`….unusable`), never overwritten or removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from evfi.errors import ConfigError, InputError, OutputError
from evfi.files import (
    check_writable,
    is_partial,
    make_room,
    one_line,
    read_mark,
    remove_leftovers,
    temporary_beside,
    written_whole,
)
from evfi.guard import Read, Written, check_cache, check_places
from evfi.paths import check_name
from evfi.recordings.files import is_looked_for, recording_reads
from evfi.recordings.opening import open_recording
from evfi.training.checkpoint import digest_of, digest_on_disk, holds_state, saved_states
from evfi.training.config import ControlNetTraining, RefinerTraining, TrainConfig
from evfi.training.textures import TEXTURE_FOLDERS

CURVES_FILE: Final = "curves.png"
MODEL: Final = "model"
SAMPLES: Final = "samples"
STATES: Final = "states"
_FOLDERS: Final = (MODEL, SAMPLES, STATES, "tensorboard")
_CONFIG_FILE: Final = "config.json"
_MODEL_NOTE_FILE: Final = "model.json"
_LOCK_FILE: Final = "run.lock"
_MARK_FILE: Final = "evfi-run.json"
_MARK: Final[dict[str, Any]] = {"format": "evfi-training-run", "version": 1}
_MODEL_NOTE: Final[dict[str, Any]] = {"format": "evfi-training-run-model", "version": 1}
_WRITTEN: Final = (_CONFIG_FILE, _MODEL_NOTE_FILE, _MARK_FILE, MODEL, CURVES_FILE)
_MAX_JSON_BYTES: Final = 2**24
_STAGES: Final = ("autoencoder", "base", "controlnet", "refiner")
_CONFIG_KEYS: Final = {"stage", "textures", "output", "steps", "batch_size", "learning_rate", "ema_decay", "seed"}
"""What every version wrote into `config.json`, among others."""

_RESUMABLE_CHANGES: Final = {
    *("steps", "max_minutes", "cooldown_steps", "device", "prefetch", "output", "textures", "init"),
    *("checkpoint_every", "keep_checkpoints", "log_every", "validate_every"),
    *("validation", "validation_skip", "validation_windows"),
}
"""Settings that may differ when a run is resumed: they move its end or its records, not its steps."""


def check_run(config: TrainConfig) -> None:
    """Make sure, before any work, that a run may write its folder, and loses nothing that it reads or that others put there.

    Args:
        config: the run's settings.

    Raises:
        ConfigError: the folder is of a run with other settings.
        InputError: the settings of the run to resume, or a recording, cannot be read.
        OutputError: the folder is something else's, is read, or cannot be written.
    """
    is_ours = _check_folder(config.output)
    _check_settings(config)
    check_cache(config.validation)
    check_places([Written(config.output, "the run folder", "store", is_ours=is_ours)], _reads_of(config))
    place = config.output.absolute()
    while not place.exists():
        place = place.parent
    check_writable(place / "probe")


class RunFolder:
    """The folder of one run; use as a context manager, which makes and locks it."""

    def __init__(self, config: TrainConfig, *, is_main: bool = True) -> None:
        """Take a run; nothing is written yet.

        Args:
            config: its settings; `check_run` has seen them.
            is_main: whether this process writes; of several processes of one run, only one does.
        """
        self.path = config.output
        self._settings, self._is_main = settings_of(config), is_main
        self._lock = FileLock(self.path / _LOCK_FILE)

    def __enter__(self) -> RunFolder:
        """Make the folder and lock it, and save the settings.

        Raises:
            OutputError: it cannot be made, is something else's, or another process trains in it.
        """
        if not self._is_main:
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"another process is training in {self.path}; wait until it is done, stop it, or choose another --output"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot make the run folder {self.path}: {one_line(error)}; choose another") from error
        try:
            self._prepare()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        if self._is_main:
            self._lock.release()

    @contextmanager
    def model_written(self) -> Iterator[Path]:
        """Give a temporary folder that becomes the run's `model/` at success, in the place of an earlier one.

        Raises:
            OutputError: the disk refuses.
        """
        place = self.path / MODEL
        try:
            with temporary_beside(place) as partial:
                yield partial
                self._replace_model(place, partial)
        except OSError as error:
            raise OutputError(f"cannot write {place}: {one_line(error)}; run the same command to try again") from error

    def _prepare(self) -> None:
        _check_folder(self.path)  # again: somebody may have put something there meanwhile
        remove_leftovers(self.path, _WRITTEN.__contains__)
        remove_leftovers(self.path / SAMPLES, lambda name: name.startswith("step-"))
        self._write(_MARK_FILE, _MARK, lambda content: bool(content == _MARK))
        for name in _FOLDERS:
            make_room(self.path / name, Path.is_dir)
        self._write(_CONFIG_FILE, self._settings, is_config)

    def _replace_model(self, place: Path, made: Path) -> None:
        new, known = _digests_of(made, digest_on_disk), self._noted_model()
        if new is None:
            raise OutputError(f"cannot write {place}: it holds something other than files")
        found = _digests_of(place, digest_of) if os.path.lexists(place) else {}
        if found != new:
            make_room(place, lambda _: found is not None and all(found[name] in known.get(name, ()) for name in found))
            names = dict.fromkeys((*known, *new))
            both = {name: list(dict.fromkeys([*known.get(name, ()), *new.get(name, "").split()])) for name in names}
            self._note_model(both)  # a run that is killed now is known by either
            if os.path.lexists(place):
                with temporary_beside(place) as old:
                    place.replace(old)
                    made.replace(place)
            else:
                made.replace(place)
        self._note_model({name: [digest] for name, digest in new.items()})

    def _noted_model(self) -> dict[str, list[str]]:
        note = _read_json(self.path / _MODEL_NOTE_FILE)
        if not _is_model_note(note):
            return {}
        return {str(name): [str(digest) for digest in digests] for name, digests in note["files"].items()}

    def _note_model(self, files: Mapping[str, list[str]]) -> None:
        self._write(_MODEL_NOTE_FILE, {**_MODEL_NOTE, "files": files}, _is_model_note)

    def _write(self, name: str, content: Any, is_one: Callable[[Any], bool]) -> None:
        file = self.path / name
        make_room(file, lambda file: is_one(_read_json(file)))
        with written_whole(file) as partial, partial.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Every setting as its JSON file gives it back."""
    settings: dict[str, Any] = json.loads(json.dumps(config.as_json(), default=str))
    return settings


def is_config(content: Any) -> bool:
    """Whether the content of a JSON file is the settings of a run."""
    return isinstance(content, dict) and content.keys() >= _CONFIG_KEYS and content["stage"] in _STAGES


def _check_folder(path: Path) -> bool:
    """Make sure that a folder may keep a run: it is missing, empty, or a run's; whether it is a run's."""
    check_name(path, OutputError)
    try:
        if os.path.lexists(path) and not path.is_dir():
            raise OutputError(
                f"cannot make the run folder {path}: a file with that name exists; choose another --output"
            )
        entries = [entry for entry in path.iterdir() if not is_partial(entry)] if path.is_dir() else []
    except OSError as error:
        raise OutputError(f"cannot use the run folder {path}: {one_line(error)}; choose another --output") from error
    if all(entry.name == _LOCK_FILE and _is_empty_file(entry) for entry in entries):
        return False
    lock = path / _LOCK_FILE
    if os.path.lexists(lock) and not _is_empty_file(lock):
        raise OutputError(
            f"{path} is not a training run's folder: its {_LOCK_FILE} is not empty; choose another --output"
        )
    is_run = _read_json(path / _MARK_FILE) == _MARK or is_config(_read_json(path / _CONFIG_FILE))
    if not is_run and not holds_state(path / STATES):
        raise OutputError(
            f"{path} is not a training run's folder: it holds other files, such as {sorted(entries)[0].name}; choose "
            "another --output, or an empty folder"
        )
    return True


def _check_settings(config: TrainConfig) -> None:
    """Refuse a folder that holds states which were made with other settings."""
    if not saved_states(config.output / STATES):
        return
    path, settings = config.output / _CONFIG_FILE, settings_of(config)
    before = _read_json(path)
    if not is_config(before):
        raise InputError(
            f"{path} cannot be read or is not a run's, so training cannot resume; put it back, or choose another --output"
        )
    changed = [key for key in settings if key not in _RESUMABLE_CHANGES and before.get(key) != settings[key]]
    if changed:
        was = ", ".join(f"{key} was {before.get(key)}, is {settings[key]}" for key in changed)
        raise ConfigError(f"{config.output} holds a run with other settings ({was}); choose another --output")


def _reads_of(config: TrainConfig) -> list[Read]:
    reads = [Read(config.textures, "the texture library", TEXTURE_FOLDERS.__contains__)]
    named = {
        "the model given as --init": config.init,
        "the autoencoder given as --lossy-autoencoder": getattr(config, "lossy_autoencoder", None),
    }
    reads += [Read(Path(place), name) for name, place in named.items() if place is not None]
    for path in config.validation:
        reads.append(Read(path, "the recording", is_looked_for))
        if isinstance(config, ControlNetTraining | RefinerTraining):  # other stages do not open it
            with open_recording(path) as recording:
                reads += recording_reads(recording)
    return reads


def _digests_of(folder: Path, digest: Callable[[Path], str]) -> dict[str, str] | None:
    """SHA-256 of every file below a folder, by name; None if it is none, or holds anything else, links included."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return None
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = digest(path)
    return found


def _is_model_note(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        return False
    rest = {key: value for key, value in content.items() if key != "files"}
    return rest == _MODEL_NOTE and all(isinstance(digests, list) for digests in content["files"].values())


def _is_empty_file(path: Path) -> bool:
    return not path.is_symlink() and path.is_file() and not path.stat().st_size


def _read_json(file: Path) -> Any:
    """A JSON file of the run; None if it is none."""
    return read_mark(file, _MAX_JSON_BYTES)
