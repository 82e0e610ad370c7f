"""ControlNet weights out of a zip archive, into a cache folder.

Archives come from strangers: only `config.json` and safetensors files of one folder are taken, they are written under their
bare names (so no member can point outside the folder), and sizes are checked against the archive's directory and the free disk
before a byte is written.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from evfi.errors import ModelError, ResourceError, escaped
from evfi.files import one_line, remove_leftovers, temporary_beside
from evfi.limits import refusal, shown_bytes
from evfi.models.layouts import find_controlnet, is_weight_file
from evfi.zips import DAMAGE, content_starts, member_blocks

_NAME: Final = re.compile(r".+-[0-9a-f]{12}", re.DOTALL)
MAX_UNPACKED_BYTES = 16 * 2**30
"""More than any ControlNet of this kind needs: the published ones hold 682 M parameters, 2.7 GB in float32."""


def unpack_controlnet(archive: Path, cache: Path) -> Path:
    """Extract the ControlNet of a zip archive, once; later calls find the folder again.

    Args:
        archive: a zip whose root, `controlnet/` or `checkpoint-N/controlnet/` holds `config.json` and safetensors files; the
            latest checkpoint is taken.
        cache: folder under which the extracted files are kept.

    Returns:
        The folder of the extracted files.

    Raises:
        ModelError: not a zip, damaged, without a ControlNet, or of implausible size.
        ResourceError: too little disk space.
    """
    target = cache / _fingerprint(archive)
    if target.is_dir():
        return target
    try:
        with archive.open("rb") as file, zipfile.ZipFile(file) as opened:
            members = _wanted_members(opened, archive)
            content_starts(opened, file, members)
            _check_sizes(members, archive, cache)
            return _extract(opened, members, target)
    except OSError as error:
        raise ModelError(f"cannot unpack {archive} into {cache} ({error.strerror or error})") from error
    except DAMAGE as error:
        reason = one_line(error)
        raise ModelError(f"cannot read {archive} as a zip archive ({reason}); fetch it again") from error


def _fingerprint(archive: Path) -> str:
    """A folder name that changes when the archive does."""
    status = archive.stat()
    text = f"{archive.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{archive.stem}-{digest[:12]}"


def _wanted_members(opened: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The directory entries of the ControlNet's files."""
    entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    folder = find_controlnet([PurePosixPath(entry.filename) for entry in entries], archive)
    wanted = [
        entry
        for entry in entries
        if PurePosixPath(entry.filename).parent == folder and is_weight_file(PurePosixPath(entry.filename).name)
    ]
    names = [PurePosixPath(entry.filename).name for entry in wanted]
    if len(set(names)) != len(names):
        raise ModelError(f"{archive} holds two files with the same name in {escaped(str(folder))}; fetch it again")
    return wanted


def _check_sizes(members: list[zipfile.ZipInfo], archive: Path, cache: Path) -> None:
    unpacked = sum(entry.file_size for entry in members)
    packed = sum(entry.compress_size for entry in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise ModelError(
            f"{archive} claims to unpack to {shown_bytes(unpacked)}; a ControlNet takes at most "
            f"{shown_bytes(MAX_UNPACKED_BYTES)}, so the archive is not trusted"
        )
    if told := refusal(unpacked, packed, in_memory=False):
        raise ModelError(f"{archive} is not trusted: its {told}")
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if unpacked > free:
        raise ResourceError(f"unpacking {archive} needs {unpacked:,} bytes in {cache}, {free:,} are free")


def _extract(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], target: Path) -> Path:
    """Write the members under their bare names; the target appears only when all of them are there."""
    remove_leftovers(target.parent, lambda name: _NAME.fullmatch(name) is not None)  # of a run that was killed
    with temporary_beside(target) as made:
        made.mkdir()
        for entry in members:
            with (made / PurePosixPath(entry.filename).name).open("xb") as sink:
                sink.writelines(member_blocks(opened, entry))
        try:
            made.replace(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
    return target
