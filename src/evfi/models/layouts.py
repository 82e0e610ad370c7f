"""How model folders look: which files make a bundle, a base model or a ControlNet.

    bundle       evfi.json and the folders it names (vae/, unet/, controlnet/, ...)
    base         unet/ and vae/, each with config.json and safetensors files, and scheduler/ (diffusers' layout)
    ControlNet   config.json and safetensors files, in the folder itself, in controlnet/, or in checkpoint-N/controlnet/

Only safetensors are read; pickled weights can run code when loaded and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from evfi.errors import ModelError, escaped
from evfi.paths import is_file

BUNDLE_FILE = "evfi.json"
INDEX_NAME = "model_index.json"
CONFIG_NAME = "config.json"
REFINER_FOLDER = "refiner"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,18})")


def is_bundle(folder: Path) -> bool:
    """Whether the folder is a bundle that `evfi` saved."""
    return (folder / BUNDLE_FILE).is_file()


def is_base(folder: Path, networks: tuple[str, ...] = ("unet", "vae")) -> bool:
    """Whether the folder is a base model in diffusers' layout that has these networks, in any precision."""
    return (folder / "scheduler" / "scheduler_config.json").is_file() and all(
        (folder / name / CONFIG_NAME).is_file() and any((folder / name).glob("*.safetensors")) for name in networks
    )


def is_weight_file(name: str) -> bool:
    """Whether a file of this bare name belongs to a network: its config, its weights, or the index of their shards."""
    index = ".safetensors.index" in name and name.endswith(".json")
    return name == CONFIG_NAME or name.endswith(".safetensors") or index


def controlnet_folder(folder: Path) -> Path:
    """The sub-folder of `folder` (or itself) that holds a ControlNet; of several checkpoints the latest.

    Raises:
        ModelError: there is none, or only pickled weights.
    """
    found = [path for pattern in _PLACES for path in folder.glob(pattern) if is_file(path)]
    inside = [PurePosixPath(path.relative_to(folder).as_posix()) for path in found]
    return folder / find_controlnet(inside, folder)


_PLACES = ("*", "controlnet/*", "*/controlnet/*", "*/*/controlnet/*")
"""Deepest is <wrapper>/checkpoint-N/controlnet/."""


def holds_controlnet(folder: Path) -> bool:
    """Whether `controlnet_folder` finds one."""
    try:
        controlnet_folder(folder)
    except ModelError:
        return False
    return True


def find_controlnet(files: Sequence[PurePosixPath], where: Path) -> PurePosixPath:
    """Choose the folder of a ControlNet among files.

    Args:
        files: paths relative to a folder's or an archive's root.
        where: that folder or archive, for messages.

    Returns:
        The folder, relative to the root.

    Raises:
        ModelError: there is none, or only pickled weights.
    """
    folders = {path.parent for path in files if path.name == CONFIG_NAME and _rank(path.parent) is not None}
    usable = [folder for folder in folders if _has_suffix(files, folder, (".safetensors",))]
    if usable:
        return max(usable, key=lambda folder: (_rank(folder) or (0, 0), str(folder)))
    pickled = [path for path in files if path.suffix in _PICKLES and path.parent in folders]
    if pickled:
        raise ModelError(
            f"{where} holds the ControlNet only as a pickle ({escaped(str(pickled[0]))}), which can run code when loaded; "
            "fetch or convert it to .safetensors"
        )
    raise ModelError(
        f"no ControlNet in {where}: expected config.json and *.safetensors there, in controlnet/ or in "
        f"checkpoint-N/controlnet/; found {_listing(files)}"
    )


def _rank(folder: PurePosixPath) -> tuple[int, int] | None:
    """Preference for a folder, larger is better: the root, controlnet/, then the latest checkpoint; None: no place for one."""
    parts = folder.parts
    if not parts:
        return (3, 0)
    if parts[-1] != "controlnet" or len(parts) > 3:
        return None
    if len(parts) == 1:
        return (2, 0)
    checkpoint = _CHECKPOINT.fullmatch(parts[-2])
    if checkpoint:
        return (1, int(checkpoint[1]))
    return (0, 0) if len(parts) == 2 else None


def _has_suffix(files: Iterable[PurePosixPath], folder: PurePosixPath, suffixes: tuple[str, ...]) -> bool:
    return any(path.parent == folder and path.suffix in suffixes for path in files)


def _listing(files: Sequence[PurePosixPath], limit: int = 4) -> str:
    if not files:
        return "no files"
    names = ", ".join(escaped(str(path)) for path in sorted(files)[:limit])
    return names + (f" and {len(files) - limit} more" if len(files) > limit else "")
