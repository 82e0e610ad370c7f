"""Find and download the published weights of metrics.

They are PyTorch files, which are pickles inside. They are read as tensors only (`weights_only`), which is what keeps a file
from running code, and before that compared with a SHA-256 that is written here. Of the image classifiers only the first
eight digits of it are published: they tell a damaged or another file, not a forged one.

A file is looked for in an installed package that carries it (whose code is not run), in `metrics/` of our cache, in
PyTorch's own cache, and then fetched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import torch
from torch import Tensor, hub

from evfi.errors import EvfiError, ModelError
from evfi.files import cache_folder, one_line, written_whole

_TIMEOUT_S: Final = 20.0
_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True)
class WeightsFile:
    """One published file.

    Attributes:
        name: of the file.
        sha256: hexadecimal, or its beginning where only that is published.
        num_bytes: its size; of a file of which only the beginning of the hash is known, the most it may have.
        package: the package that carries it, if one does; its name on PyPI has hyphens for underscores.
        path: where in that package.
        url: where it can be fetched, if it can.
        hint: the command that installs the package.
    """

    name: str
    sha256: str
    num_bytes: int
    package: str = ""
    path: str = ""
    url: str = ""
    hint: str = ""


_HEADS_URL: Final = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
_HEADS_HINT: Final = "`pip install --no-deps lpips`"

ALEX_HEADS: Final = WeightsFile(
    "lpips-v0.1-alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    6_009,
    "lpips",
    "weights/v0.1/alex.pth",
    f"{_HEADS_URL}/alex.pth",
    _HEADS_HINT,
)
VGG_HEADS: Final = WeightsFile(
    "lpips-v0.1-vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    7_289,
    "lpips",
    "weights/v0.1/vgg.pth",
    f"{_HEADS_URL}/vgg.pth",
    _HEADS_HINT,
)
ALEX_LAYERS: Final = WeightsFile(
    "alexnet-owt-7be5be79.pth",
    "7be5be79",
    2**28,
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
VGG_LAYERS: Final = WeightsFile(
    "vgg16-397923af.pth", "397923af", 2**30, url="https://download.pytorch.org/models/vgg16-397923af.pth"
)
SHIFT_TOLERANT_ALEX: Final = WeightsFile(
    "alex_shift_tolerant.pth",
    "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    9_899_296,
    "stlpips_pytorch",
    "weights/vST0.0/alex_shift_tolerant.pth",
    hint="`pip install 'evfi[eval]'` or `pip install --no-deps stlpips-pytorch`",
)


def load_published(file: WeightsFile) -> dict[str, Tensor]:
    """Find a file, fetch it if need be, and read its tensors.

    Args:
        file: which.

    Raises:
        ModelError: it is not here and cannot be fetched, or is another file.
    """
    path = find_published(file)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; its text would advise to load the file without protection
        raise ModelError(f"cannot read {path} as tensors ({type(error).__name__}); {_remedy(file, path)}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(f"cannot read {path} as tensors (it contains something else); {_remedy(file, path)}")
    return dict(weights)


def find_published(file: WeightsFile) -> Path:
    """A file's path, fetched if need be and compared with its SHA-256.

    Raises:
        ModelError: see `load_published`.
    """
    for path in _places(file):
        try:
            found = path.is_file()
            wrong = _difference(file, path) if found else ""
        except OSError as error:
            raise ModelError(f"cannot read {path}: {one_line(error)}; {_remedy(file, path)}") from error
        if wrong:
            raise ModelError(f"{path} is not the published file: {wrong}; {_remedy(file, path)}")
        if found:
            return path
    return _fetched(file)


def _places(file: WeightsFile) -> list[Path]:
    packaged = [] if (path := _packaged(file)) is None else [path]
    return [*packaged, cache_folder() / "metrics" / file.name, Path(hub.get_dir()) / "checkpoints" / file.name]


def _packaged(file: WeightsFile) -> Path | None:
    """Where the file lies if its package is installed; the package is not imported."""
    spec = find_spec(file.package) if file.package else None
    return Path(spec.origin).parent / file.path if spec is not None and spec.origin else None


def _difference(file: WeightsFile, path: Path) -> str:
    """In what a file is not the published one; empty if it is."""
    size = path.stat().st_size
    if size > file.num_bytes:
        return f"expected at most {file.num_bytes} bytes, found {size}"
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found.startswith(file.sha256):
        return ""
    return f"expected SHA-256 {file.sha256[:16]}…, found {found[:16]}… in {size} bytes"


def _remedy(file: WeightsFile, path: Path) -> str:
    if path == _packaged(file):
        return f"reinstall it: `pip install --force-reinstall --no-deps {file.package.replace('_', '-')}`"
    return "remove it to download it again" if file.url else f"remove it and {file.hint}"


def _fetched(file: WeightsFile) -> Path:
    target = cache_folder() / "metrics" / file.name
    what = f"{file.name} is missing"
    if not file.url:
        raise ModelError(f"{what}; install it: {file.hint}")
    by_hand = f"download {file.url} and save it as {target}" + (f", or {file.hint}" if file.hint else "")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise ModelError(f"{what} and downloads are disabled (HF_HUB_OFFLINE); {by_hand}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as partial:
            _download(file, partial)
    except (OSError, EvfiError) as error:
        raise ModelError(f"{what} and cannot be downloaded ({one_line(error)}); {by_hand}") from error
    return target


def _download(file: WeightsFile, path: Path) -> None:
    with path.open("wb") as stream:
        for block in _blocks(file):
            stream.write(block)
    if wrong := _difference(file, path):
        raise ModelError(f"the download is not the published file: {wrong}")


def _blocks(file: WeightsFile) -> Iterator[bytes]:
    """What the server sends, little more than the file may have at most."""
    left = file.num_bytes
    try:
        with urlopen(file.url, timeout=_TIMEOUT_S) as source:
            while left >= 0 and (block := source.read(_BLOCK_BYTES)):
                left -= len(block)
                yield block
    except (OSError, HTTPException) as error:
        raise ModelError(one_line(error)) from error
