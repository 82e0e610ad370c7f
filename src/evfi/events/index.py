"""Where the parts of a large event file lie, so that a slice reads no more than it needs.

Making an index means going through the whole file once. It is kept in the cache folder, under a name made from the
file's path and the reader; it is used again only if the file's size, time of change and both ends are the same, and made
anew otherwise. A damaged index is made anew, too. Small files are not worth one.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import OutputError
from evfi.events.report import ReadReport
from evfi.files import cache_folder, remove_leftovers, written_whole
from evfi.plain_json import loads
from evfi.zips import DAMAGE

MIN_INDEXED_BYTES: Final = 8 * 2**20
MAX_INDEX_BYTES: Final = 256 * 2**20
_END_BYTES: Final = 65536
_MAX_ABOUT_BYTES: Final = 2**20
_NAME: Final = re.compile(r"[0-9a-f]{32}\.npz")


@dataclass(frozen=True, eq=False)
class ChunkIndex:
    """The parts (chunks) of an event file.

    Attributes:
        starts: where each chunk begins and the last one ends, in the reader's unit (bytes, elements), int64 [C + 1].
        bounds_us: earliest and latest time of an event in each chunk, int64 [C, 2]; chunks without events are left out.
        counts: events per chunk, int64 [C].
        states: what the decoder must know at the start of each chunk, int64 [C, S]; S may be 0.
        sensor_size: (width, height), where the file's content tells it.
        report: what was found on the way.
    """

    starts: NDArray[np.int64]
    bounds_us: NDArray[np.int64]
    counts: NDArray[np.int64]
    report: ReadReport
    states: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    sensor_size: tuple[int, int] | None = None

    @property
    def time_range_us(self) -> tuple[int, int]:
        """Times of the first and of the last event in µs; there must be one."""
        return int(self.bounds_us[:, 0].min()), int(self.bounds_us[:, 1].max())


def load_or_build(
    path: Path, reader: str, build: Callable[[], ChunkIndex], *, min_bytes: int = MIN_INDEXED_BYTES
) -> ChunkIndex:
    """The index of a file: the one that was kept if it still fits, or a new one, which is then kept.

    Args:
        path: the event file.
        reader: name and version of the reader, with all options on which the index depends; it changes when the meaning
            of the index does.
        build: goes through the file.
        min_bytes: files below this size are gone through each time.
    """
    if path.stat().st_size < min_bytes:
        return build()
    kept = index_path(path, reader)
    fingerprint = _fingerprint(path, reader)
    index = _load(kept, fingerprint)
    if index is None:
        index = build()
        if _fingerprint(path, reader) == fingerprint:  # nobody wrote on meanwhile
            _save(kept, fingerprint, index)
    return index


def index_path(path: Path, reader: str) -> Path:
    """Where the index of a file is kept."""
    key = hashlib.sha256(f"{path.resolve()}\0{reader}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "indexes" / f"{key}.npz"


def _fingerprint(path: Path, reader: str) -> str:
    """Tells one content of a file from another: size, time of change, and a hash of its ends."""
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_END_BYTES))
        file.seek(max(0, status.st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return f"1 {reader} {status.st_size} {status.st_mtime_ns} {digest.hexdigest()}"


def _load(kept: Path, fingerprint: str) -> ChunkIndex | None:
    try:
        if not 0 < kept.stat().st_size < MAX_INDEX_BYTES:
            return None
        with zipfile.ZipFile(kept) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_INDEX_BYTES:
                return None
        with np.load(kept, allow_pickle=False) as members:
            arrays = {name: members[name] for name in members.files}
        return _from_arrays(arrays, fingerprint)
    except (*DAMAGE, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError):
        return None  # damaged or of another version: it is made anew


def _from_arrays(arrays: dict[str, NDArray[Any]], fingerprint: str) -> ChunkIndex | None:
    about = loads(arrays["about"].astype(np.uint8)[:_MAX_ABOUT_BYTES].tobytes())
    starts, bounds, counts, states = (arrays[name] for name in ("starts", "bounds_us", "counts", "states"))
    num = len(counts)
    fits = starts.shape == (num + 1,) and bounds.shape == (num, 2) and states.ndim == 2
    if (
        about["fingerprint"] != fingerprint
        or not fits
        or any(array.dtype != np.int64 for array in (starts, bounds, counts))
    ):
        return None
    report = ReadReport(**{**about["report"], "notes": tuple(about["report"]["notes"])})
    size = about["sensor_size"]
    return ChunkIndex(starts, bounds, counts, report, states, None if size is None else (int(size[0]), int(size[1])))


def _save(kept: Path, fingerprint: str, index: ChunkIndex) -> None:
    """Keep an index, whole or not at all; a cache that cannot be written is no error."""
    about = {"fingerprint": fingerprint, "report": asdict(index.report), "sensor_size": index.sensor_size}
    with suppress(OSError, OutputError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(kept.parent, lambda name: _NAME.fullmatch(name) is not None)  # of a run that was killed
        with written_whole(kept) as partial:
            np.savez(
                partial,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                starts=index.starts,
                bounds_us=index.bounds_us,
                counts=index.counts,
                states=index.states,
            )
