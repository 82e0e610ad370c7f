"""HDF5 files that nobody vouches for: opened so that nothing outside the file is touched, and sizes are what is stored.

Links, virtual datasets and external storage are refused, not followed. A dataset may claim any shape; it is accepted only
if that much is stored, in chunks of bounded size. Whatever goes wrong inside the HDF5 library becomes one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from evfi.errors import EvfiError, InputError
from evfi.limits import allowed_bytes, check_bytes

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
ECF_FILTER: Final = 0x8ECF
MAX_CHUNK_BYTES: Final = 2**28
_FIRST_SIGNATURE: Final = 512  # behind a user block, whose size is a power of two
_CACHE_BYTES: Final = 2**25
_MAX_ATTRIBUTE_BYTES: Final = 4096
_MAX_LISTED: Final = 24
_MAX_VISITED: Final = 64
_MAX_DEPTH: Final = 4
_FILTER_NAMES: Final = {
    307: "bzip2",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32026: "Blosc2",
    ECF_FILTER: "ECF of Prophesee",
}
_LIBRARY_ERRORS: Final = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
)


def is_hdf5(path: Path) -> bool:
    """Whether the file begins with HDF5's signature, perhaps after a block of the user's."""
    try:
        with path.open("rb") as file:
            place, size = 0, path.stat().st_size
            while place < size:
                file.seek(place)
                if file.read(len(SIGNATURE)) == SIGNATURE:
                    return True
                place = max(2 * place, _FIRST_SIGNATURE)
    except OSError:
        pass
    return False


@contextmanager
def one_line_errors(path: Path, what: str) -> Iterator[None]:
    """Turn what the HDF5 library raises into an `InputError` that says what could not be done."""
    try:
        yield
    except EvfiError:
        raise
    except _LIBRARY_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: {what}; the file is damaged, copy it again ({reason})") from None


class Hdf5File:
    """An HDF5 file, open for reading; closed with `close`.

    Args:
        path: the file.

    Raises:
        InputError: it is no HDF5 file, or damaged or truncated.
    """

    def __init__(self, path: Path):
        import h5py
        import hdf5plugin  # noqa: F401 - makes the filters known to the library

        self.path = path
        self._num_bytes = path.stat().st_size
        self._claimed: dict[str, int] = {}
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES, locking="best-effort")
        except _LIBRARY_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
            if "truncated" in reason or "eof" in reason.lower():
                raise InputError(
                    f"{path}: truncated: the file is shorter ({self._num_bytes} bytes) than its header says; HDF5 cannot "
                    "be read in part, so copy it again"
                ) from None
            raise InputError(f"{path}: cannot be opened as HDF5 ({reason}); copy it again") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def group(self, name: str) -> Any | None:
        """A group, or None if there is none of this name."""
        node = self._node(name)
        return node if node is not None and hasattr(node, "keys") else None

    def has(self, name: str) -> bool:
        """Whether there is a group or dataset of this name."""
        return self._node(name) is not None

    def names(self, group: str = "", *, limit: int = 2**20) -> list[str]:
        """The names in a group, in order; empty if there is no such group.

        Raises:
            InputError: there are more than `limit`.
        """
        node = self.group(group)
        if node is None:
            return []
        with one_line_errors(self.path, f"group '{group or '/'}' cannot be listed"):
            found = list(islice(iter(node), limit + 1))
        if len(found) > limit:
            raise InputError(f"{self.path}: group '{group or '/'}' holds more than {limit} entries")
        return sorted(name for name in found if isinstance(name, str))  # others are no text in UTF-8

    def dataset(self, name: str, *, is_probed: bool = False) -> Any | None:
        """A dataset whose content is in the file, or None if there is no dataset of this name.

        Args:
            name: where.
            is_probed: only single elements will be read, so that its whole size does not matter.

        Raises:
            InputError: its content lies elsewhere or is not all there, or a filter is unknown.
        """
        node = self._node(name)
        with one_line_errors(self.path, f"dataset '{name}' cannot be opened"):
            if node is None or not hasattr(node, "dtype"):
                return None
            self._check_storage(name, node, is_probed)
            self._check_filters(name, node)
        return node

    def required(self, name: str) -> Any:
        """As `dataset`, but it must be there."""
        dataset = self.dataset(name)
        if dataset is None:
            raise InputError(f"{self.path}: dataset '{name}' is missing; found {self.describe()}")
        return dataset

    def attribute(self, name: str, of: str = "") -> Any:
        """The value of a small attribute of the file, a group or a dataset; None where it is missing or unreadable."""
        node = self._node(of)
        if node is None:
            return None
        try:
            if name not in node.attrs:
                return None
            found = node.attrs.get_id(name)
            if found.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
                return None
            value = self._guarded_attribute(name, of) if found.dtype.hasobject else node.attrs[name]
        except _LIBRARY_ERRORS:
            return None
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def _guarded_attribute(self, name: str, of: str) -> Any:
        """The value of an attribute of variable length, which the library may never end reading if it is damaged."""
        import h5py

        from evfi.events.formats.hdf5.heap import GuardedFile

        with GuardedFile(self.path) as content, h5py.File(content, "r") as file:
            return file[of or "/"].attrs[name]

    def describe(self) -> str:
        """What datasets the file holds, for messages."""
        found: list[str] = []
        visits = self._visit("", 0)
        for text in islice(visits, _MAX_LISTED):
            found.append(text)
        more = ", …" if next(visits, None) is not None else ""
        return ", ".join(found) + more if found else "no dataset"

    def _visit(self, group: str, depth: int) -> Iterator[str]:
        try:
            names = list(islice(iter(self._file[group or "/"]), _MAX_VISITED))
        except _LIBRARY_ERRORS:
            return
        for part in names:
            name = f"{group}/{part}" if group else part
            try:
                node = self._node(name)
                text = "" if node is None or hasattr(node, "keys") else f"{name} {node.dtype} {list(node.shape)}"
            except (*_LIBRARY_ERRORS, EvfiError):
                node, text = None, f"{name} (unreadable)"
            if text:
                yield " ".join(text.split())[:120]
            elif depth < _MAX_DEPTH:
                yield from self._visit(name, depth + 1)

    def _node(self, name: str) -> Any | None:
        """A group or dataset, reached by hard links alone."""
        from h5py import h5l

        node = self._file
        with one_line_errors(self.path, f"'{name}' cannot be opened"):
            for part in filter(None, name.split("/")):
                links = node.id.links if hasattr(node, "keys") else None
                if links is None or not links.exists(part.encode()):
                    return None
                if links.get_info(part.encode()).type != h5l.TYPE_HARD:
                    raise InputError(
                        f"{self.path}: '{name}' is a link to another place; such links are not followed; copy the data into "
                        "the file itself (h5repack, or h5py's copy with expand_external)"
                    )
                node = node[part]
        return node

    def _check_storage(self, name: str, dataset: Any, is_probed: bool) -> None:
        import math

        if dataset.is_virtual or dataset.external:
            raise InputError(
                f"{self.path}: dataset '{name}' is stored in other files, which are not opened; copy the data into "
                "the file itself"
            )
        if dataset.dtype.hasobject or dataset.shape is None:
            raise InputError(f"{self.path}: dataset '{name}' must hold numbers, found {dataset.dtype}")
        itemsize, stored = dataset.dtype.itemsize, dataset.id.get_storage_size()
        claimed = math.prod(dataset.shape) * itemsize
        self._claimed[name] = 0 if is_probed else claimed
        is_short = stored < claimed if dataset.chunks is None else False
        if dataset.chunks is not None:
            limit, chunk_bytes = (
                min(MAX_CHUNK_BYTES, allowed_bytes(self._num_bytes)),
                math.prod(dataset.chunks) * itemsize,
            )
            if chunk_bytes > limit:
                raise InputError(
                    f"{self.path}: dataset '{name}' is stored in chunks of {chunk_bytes} bytes, more than the {limit} allowed "
                    "for a file of this size; store it in smaller chunks (h5repack -l CHUNK=65536)"
                )
            expected = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
            is_short = expected > self._num_bytes or dataset.id.get_num_chunks() < expected
        if is_short:
            raise InputError(
                f"{self.path}: dataset '{name}' claims {list(dataset.shape)} elements, but the file ({self._num_bytes} bytes) "
                "does not hold as many; it was not written to its end, or is damaged"
            )
        check_bytes(f"{self.path}: dataset '{name}'", sum(self._claimed.values()), self._num_bytes, in_memory=False)

    def _check_filters(self, name: str, dataset: Any) -> None:
        from h5py import h5z

        plist = dataset.id.get_create_plist()
        for number in range(plist.get_nfilters()):
            code = plist.get_filter(number)[0]
            if code != ECF_FILTER and not h5z.filter_avail(code):
                raise InputError(
                    f"{self.path}: dataset '{name}' uses a compression filter that is not supported: number {code} "
                    f"({_FILTER_NAMES.get(code, 'unknown')}); rewrite the file without it (h5repack -f GZIP=4)"
                )


def filters_of(dataset: Any) -> list[int]:
    """Numbers of the filters that a dataset's chunks went through."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
