"""Short names of long things: hashes that tell whether two runs saw the same data, weights and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evfi.errors import InputError
from evfi.files import is_partial, one_line
from evfi.paths import is_file, is_folder, open_to_read, real_path

if TYPE_CHECKING:
    from torch import nn

_MAX_HASHED_BYTES: Final = 2**31
_HASHED_END_BYTES: Final = 2**22
_BLOCK_BYTES: Final = 2**22


def fingerprint_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold; the order of keys does not matter.

    Args:
        value: numbers, texts, lists and dictionaries.

    Returns:
        64 hexadecimal digits.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_fingerprint(networks: Mapping[str, nn.Module]) -> str:
    """SHA-256 over all parameters and buffers: names, shapes, dtypes and bytes, as they lie in memory after loading.

    Args:
        networks: by name; their order does not matter, nor does the device.

    Returns:
        64 hexadecimal digits.
    """
    import torch  # heavy; fingerprints of files do not need it

    digest = hashlib.sha256()
    for part in sorted(networks):
        for name, value in sorted(networks[part].state_dict().items()):
            digest.update(f"{part}/{name}/{tuple(value.shape)}/{value.dtype}\0".encode())
            values = value.detach().to("cpu").contiguous().reshape(-1)
            digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of_files(
    paths: Iterable[Path], ignored: Collection[Path] = (), stand_ins: Mapping[Path, Path] | None = None
) -> str:
    """SHA-256 of files: their sizes and bytes and, within a folder, their names.

    A file of more than 2 GiB is identified by its size and its first and last 4 MiB.

    Args:
        paths: files, and folders that are hashed with all that is in them.
        ignored: files and folders that are left out.
        stand_ins: for some files, others whose content counts instead.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in files_of(path, ignored):
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode("utf-8", "surrogateescape"))
            try:
                _add_file(digest, (stand_ins or {}).get(file, file))
            except OSError as error:
                raise InputError(f"cannot read {file}: {one_line(error)}") from error
    return digest.hexdigest()


def files_of(path: Path, ignored: Collection[Path] = ()) -> Iterator[Path]:
    """A file itself, or all files below a folder in the order of their names, behind links too; each folder once.

    What is only being written, under a temporary name of `evfi.files`, is left out.

    Args:
        path: a file or a folder.
        ignored: files and folders that are left out.

    Raises:
        InputError: a folder cannot be read.
    """
    if is_file(path):
        yield path
        return
    yield from sorted(_files_below(path, {real_path(place) for place in ignored}))


def _files_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    place = real_path(folder)
    if place in seen:
        return
    seen.add(place)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {one_line(error)}") from error
    for entry in entries:
        if is_partial(entry):
            continue
        if is_folder(entry):
            yield from _files_below(entry, seen)
        elif is_file(entry) and real_path(entry) not in seen:
            yield entry


def digest_of_file(file: Path) -> str:
    """SHA-256 of all bytes of an ordinary file, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no ordinary file.
    """
    with open_to_read(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _add_file(digest: Any, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{size}\0".encode())
    with file.open("rb") as stream:
        if size > _MAX_HASHED_BYTES:
            digest.update(stream.read(_HASHED_END_BYTES))
            stream.seek(size - _HASHED_END_BYTES)
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
