"""ROS 2 bags in SQLite (.db3): a table of topics and one of messages.

Such a file may come from strangers: it is opened read-only, only plain tables are read, no function of SQL runs, and no
value may be larger than a block of any other container.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from evfi.errors import InputError
from evfi.events.formats.bag_parts import (
    MAX_BLOCK_BYTES,
    BagMessage,
    Damage,
    OnDamage,
    Topic,
    Unpacked,
    shown,
    topic_type,
    unpack_message,
)

MAGIC: Final = b"SQLite format 3\0"
_LOOKED_AT_BYTES: Final = 65536
_TABLES: Final = {"messages": {"id", "topic_id", "timestamp", "data"}, "topics": {"id", "name", "type"}}
_ALLOWED: Final = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_PRAGMA)
_MAX_TOPICS: Final = 10_000


def is_bag_database(path: Path) -> bool:
    """Whether the file is an SQLite database with the tables of a ROS 2 bag."""
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT_BYTES)
    return start.startswith(MAGIC) and b"messages" in start and b"topics" in start and b"serialization_format" in start


class SqliteFile:
    """A ROS 2 bag in SQLite; see `BagFile`.

    Args:
        path: the file.
        message_compression: "zstd" where each message is compressed on its own, else "".

    Raises:
        InputError: it is damaged, or holds something else than the plain tables of a bag.
    """

    def __init__(self, path: Path, message_compression: str = ""):
        self.path = path
        self.complaint: Damage | None = None
        self._compression = message_compression
        self._size = path.stat().st_size
        journal = path.with_name(path.name + "-wal")
        if journal.is_file() and journal.stat().st_size:
            self.complaint = Damage(
                0, 0, f"not closed: {journal.name} holds more data; open the bag once with `sqlite3` to merge it"
            )
        try:
            with closing(self._connect()) as database:
                self.connections = _read_topics(database)
                self._complain_of_size(database)
        except (sqlite3.Error, ValueError) as error:
            raise InputError(f"{path}: damaged ROS 2 bag ({shown(str(error), 200)}); copy the file again") from None

    def messages(
        self, numbers: frozenset[int], on_damage: OnDamage, position: int = 0, ordinal: int = 0
    ) -> Iterator[BagMessage]:
        """Messages of some topics in the order of their rows; `position` is the row's id."""
        last = position - 1
        wanted = ",".join(str(int(number)) for number in sorted(numbers))
        query = f"SELECT id, timestamp, data FROM messages WHERE id >= ? AND topic_id IN ({wanted}) ORDER BY id"
        unpacked = Unpacked(self._size)
        try:
            with closing(self._connect()) as database:
                for number, time_ns, data in database.execute(query, (position,)):
                    if type(number) is not int or number <= last:
                        raise ValueError("its rows are out of order")
                    last = number
                    message = BagMessage(*self._checked(time_ns, data), number, 0)
                    if told := unpacked.add(len(message.data)):
                        raise ValueError(told)
                    yield message
        except (sqlite3.Error, ValueError) as error:
            on_damage(Damage(last, 0, f"after row {last}: {shown(str(error), 200)}"))

    def forget(self) -> None:
        """Nothing is kept."""

    def _checked(self, time_ns: object, data: object) -> tuple[int, memoryview]:
        if type(time_ns) is not int or not isinstance(data, bytes):
            raise ValueError("a message has no time or no content")
        return time_ns, unpack_message(data, self._compression)

    def _connect(self) -> sqlite3.Connection:
        address = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=ro&immutable=1"
        database = sqlite3.connect(address, uri=True, cached_statements=8)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BLOCK_BYTES)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        database.set_authorizer(_authorise)
        return database

    def _complain_of_size(self, database: sqlite3.Connection) -> None:
        pages, page_size = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        with self.path.open("rb") as file:
            promised = int.from_bytes(file.read(32)[28:32], "big") * int(page_size)
        missing = max(promised, int(pages) * int(page_size)) - self._size
        if missing > 0:
            self.complaint = Damage(self._size, missing, f"truncated: {missing} bytes are missing")


def _authorise(action: int, *_: Any) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _read_topics(database: sqlite3.Connection) -> dict[int, Topic]:
    """Topics by their ids; makes sure that all tables are plain ones."""
    for table, needed in _TABLES.items():
        kind = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        if kind is None or kind[0] != "table" or "virtual" in str(kind[1])[:32].lower():
            raise ValueError(f"it has no plain table '{table}'")
        columns = database.execute(f"PRAGMA table_xinfo({table})").fetchall()
        if not needed <= {column[1] for column in columns} or any(column[6] for column in columns):
            raise ValueError(f"the table '{table}' does not have a bag's columns")
    rows = database.execute("SELECT id, name, type, serialization_format FROM topics").fetchmany(_MAX_TOPICS)
    return {
        number: Topic(name, topic_type(kind), True)
        for number, name, kind, wire in rows
        if type(number) is int and isinstance(name, str) and isinstance(kind, str) and wire == "cdr"
    }
