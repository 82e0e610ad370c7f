"""Bags of ROS messages: ROS 1 (.bag), ROS 2 (a folder, .db3, .mcap); which topics they have, and their messages.

The containers are decoded here rather than by the library rosbags 0.11, which unpacks chunks without a limit, follows an
index wherever it points, and reads nothing of a bag that was cut or not closed; the tests write with it and compare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from evfi.errors import InputError
from evfi.events.formats import bag_mcap, bag_ros1, bag_sqlite
from evfi.events.formats.bag_parts import BagFile, BagMessage, Damage, OnDamage, Topic, shown
from evfi.paths import is_file
from evfi.safe_yaml import read_yaml
from evfi.strict_json import shown as shown_value

_METADATA: Final = "metadata.yaml"
_METADATA_KEY: Final = "rosbag2_bagfile_information"
_LOOKED_AT_BYTES: Final = 65536
_MAX_METADATA_BYTES: Final = 2**22
_SUFFIXES: Final = (".db3", ".mcap")
_MAX_FILES: Final = 100_000


class Place(NamedTuple):
    """Where in a bag reading may begin: number of the file, position and ordinal in it."""

    file: int = 0
    position: int = 0
    ordinal: int = 0


FIRST_PLACE: Final = Place()


class Bag:
    """A bag of one or more files that follow one another.

    Attributes:
        path: the file or folder.
        files: its files in order.
        topics: its topics in order of their names.
        notes: what the user should know.

    Raises:
        InputError: it is damaged at its beginning, of an unsupported version, or names files elsewhere.
    """

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        message_compression = ""
        paths = [path]
        if path.is_dir():
            paths, message_compression = _files_of_folder(path, self.notes)
            _refuse_twice(path, paths)
        self.files = [_open_file(file, message_compression) for file in paths]
        found = {topic for file in self.files for topic in file.connections.values()}
        self._used = self.files[0]
        self.topics = sorted(found, key=lambda topic: (topic.name, topic.type))

    def complaints(self) -> list[tuple[Path, Damage]]:
        """What is wrong with whole files."""
        return [(file.path, file.complaint) for file in self.files if file.complaint is not None]

    def messages(
        self, topic: Topic, on_damage: OnDamage, start: Place = FIRST_PLACE
    ) -> Iterator[tuple[BagMessage, Place]]:
        """Messages of a topic from a place on, in the files' order, each with its own place."""
        for number in range(start.file, len(self.files)):
            file = self.files[number]
            if file is not self._used:  # a bag may have thousands of files
                self._used.forget()
                self._used = file
            wanted = frozenset(key for key, value in file.connections.items() if value == topic)
            position, ordinal = (start.position, start.ordinal) if number == start.file else (0, 0)
            for message in file.messages(wanted, on_damage, position, ordinal) if wanted else ():
                yield message, Place(number, message.position, message.ordinal)

    def fingerprint(self) -> str:
        """Tells the files of a bag from others; for one file that is left to the index."""
        if len(self.files) == 1:
            return ""
        states = [(file.path.name, file.path.stat()) for file in self.files]
        return " ".join(f"{name}:{state.st_size}:{state.st_mtime_ns}" for name, state in states)

    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.path.stat().st_size for file in self.files)


def is_bag(path: Path) -> bool:
    """Whether the path is a bag of ROS 1 or ROS 2, detected from its content."""
    try:
        if path.is_dir():
            return _is_bag_folder(path)
        return _is_bag_file(path)
    except OSError:
        return False


def choose_topic(
    topics: list[Topic], usual: tuple[str, ...], what: str, preferred: str | None = None
) -> tuple[Topic, str | None]:
    """The topic to read: the only one, or a usual one, or the first; and a note that names the others.

    Args:
        topics: those to choose from, at least one.
        usual: usual names, the best first.
        what: what they are, for the note.
        preferred: a name that is better than any usual one.
    """
    order = ([preferred] if preferred else []) + list(usual)
    ranked = sorted(topics, key=lambda topic: order.index(topic.name) if topic.name in order else len(order))
    chosen = ranked[0]
    others = ", ".join(f"'{shown(topic.name)}'" for topic in ranked[1:6])
    note = f"{what} are read from topic '{shown(chosen.name)}'; not used: {others}" if others else None
    return chosen, note


def _is_bag_folder(path: Path) -> bool:
    """Whether a folder has the metadata of a bag; or, where these are missing, nothing but its files."""
    metadata = path / _METADATA
    if metadata.is_file():
        with metadata.open("rb") as file:
            return _METADATA_KEY.encode() in file.read(_LOOKED_AT_BYTES)
    found = _storage_files(path)
    return bool(found) and len(found) == len(list(path.iterdir())) and all(_is_bag_file(file) for file in found[:3])


def _is_bag_file(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(16)
    return start.startswith((bag_ros1.MAGIC, bag_mcap.MAGIC)) or (
        start == bag_sqlite.MAGIC and bag_sqlite.is_bag_database(path)
    )


def _open_file(path: Path, message_compression: str) -> BagFile:
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(bag_ros1.MAGIC):
        return bag_ros1.Ros1File(path)
    if start.startswith(bag_mcap.MAGIC):
        return bag_mcap.McapFile(path, message_compression)
    if start == bag_sqlite.MAGIC:
        return bag_sqlite.SqliteFile(path, message_compression)
    raise InputError(f"{path}: expected a ROS bag (.bag, .db3, .mcap), found something else; copy the file again")


def _storage_files(folder: Path) -> list[Path]:
    found = [file for file in folder.iterdir() if file.suffix in _SUFFIXES and is_file(file)]
    return sorted(
        found, key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]
    )


def _files_of_folder(folder: Path, notes: list[str]) -> tuple[list[Path], str]:
    """The files of a ROS 2 bag in order, and how each message is compressed."""
    metadata = folder / _METADATA
    if not metadata.is_file():
        found = _storage_files(folder)
        if not found:
            raise InputError(f"{folder}: expected metadata.yaml, or files .db3 or .mcap; found none of them")
        notes.append(f"{folder.name} has no metadata.yaml; its files are read in order of their names")
        return found, ""
    about = _read_metadata(metadata)
    mode = str(about.get("compression_mode") or "none").lower()
    names = about.get("relative_file_paths")
    if not isinstance(names, list) or not 0 < len(names) <= _MAX_FILES:
        raise InputError(f"{metadata}: expected a list of files under 'relative_file_paths'; run `ros2 bag reindex`")
    if mode == "file":
        raise InputError(f"{folder}: its files are compressed as a whole; unpack them with `ros2 bag convert`")
    files = [_file_in_folder(folder, metadata, name) for name in names]
    return files, "zstd" if mode == "message" else ""


def _refuse_twice(folder: Path, files: list[Path]) -> None:
    """Make sure that no file counts more than once, under whatever names.

    Raises:
        InputError: one does.
    """
    known: set[tuple[int, int]] = set()
    for file in files:
        state = file.stat()
        if (state.st_dev, state.st_ino) in known:
            raise InputError(
                f"{folder}: expected each file of the bag once, found {file.name} twice; run `ros2 bag reindex`"
            )
        known.add((state.st_dev, state.st_ino))


def _read_metadata(path: Path) -> dict[str, Any]:
    cure = "run `ros2 bag reindex`"
    content = read_yaml(path, _MAX_METADATA_BYTES, "metadata of a ROS 2 bag", cure)
    about = content.get(_METADATA_KEY) if isinstance(content, dict) else None
    if not isinstance(about, dict):
        raise InputError(f"{path}: expected settings under '{_METADATA_KEY}', found {shown_value(about)}; {cure}")
    return about


def _file_in_folder(folder: Path, metadata: Path, name: object) -> Path:
    """A file that metadata.yaml names, which must lie in the folder itself; old bags put the folder's name in front.

    Raises:
        InputError: it lies elsewhere, or is missing.
    """
    parts = PurePosixPath(str(name)).parts
    if not isinstance(name, str) or not 1 <= len(parts) <= 2 or "\\" in name or {"..", "/", "."} & set(parts):
        raise InputError(f"{metadata}: names the file '{shown(str(name))}', which is not in the bag's folder")
    path = folder / parts[-1]
    if path.resolve().parent != folder.resolve():
        raise InputError(f"{path}: a link that points outside the bag's folder; put the file itself there")
    if not path.is_file():
        raise InputError(f"{metadata}: names {shown(parts[-1])}, which is missing; copy the whole bag again")
    return path
