"""What a model's folder says of it, read without its networks and the libraries that run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from evfi.errors import ModelError
from evfi.events.stack_config import Normalisation, StackConfig
from evfi.kinds import FLAG, Kind, either, number, table, text, whole, word
from evfi.models.json_files import read_json
from evfi.models.layouts import BUNDLE_FILE
from evfi.strict_json import Keys, shown

BUNDLE_FORMAT: Final = 1
_INFO: Final[dict[str, Kind]] = {
    "name": text(256),
    "licence": text(),
    "source": text(),
    "num_frames": whole(3, 1024),
}
_EVENT_STACK: Final[dict[str, Kind]] = {
    "num_channels": whole(1, 16),
    "normalisation": word(*get_args(Normalisation)),
    "count_cap": whole(1, 65535),
}
_SETTING: Final = either(FLAG, number(-65536, 65536), text(64))  # what each may be is checked where it is used


@dataclass(frozen=True)
class ModelInfo:
    """Where a model comes from and what may be done with it.

    Attributes:
        name: what users call it.
        licence: of the weights, in a few words.
        source: where the weights come from.
        num_frames: frames per window that it was trained with, key frames included.
    """

    name: str
    licence: str
    source: str
    num_frames: int


def read_bundle_facts(folder: Path) -> tuple[ModelInfo, StackConfig, dict[str, Any]]:
    """What a bundle's folder says of it: where it comes from, its event representation, its sampling defaults.

    Args:
        folder: holds `evfi.json`.

    Raises:
        ModelError: the file is missing or damaged, or a key is missing, unknown or not of its kind.
    """
    path = folder / BUNDLE_FILE
    keys = Keys(read_json(path), str(path), "the bundle's facts", ModelError)
    if (version := keys.take("format")) != BUNDLE_FORMAT or type(version) is not int:
        raise ModelError(f"{path} has format {shown(version)}, this version reads {BUNDLE_FORMAT}; update evfi")
    info = ModelInfo(**keys.declared(_INFO, tuple(_INFO)))
    stack = keys.inner("event_stack")
    settings = stack.declared(_EVENT_STACK)
    sampling = keys.of("sampling", table(_SETTING, "sampling settings", 64))
    for part in (keys, stack):
        part.finish()
    return info, StackConfig(**settings), sampling
