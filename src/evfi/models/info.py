"""What a model's folder says of it, read without its networks and the libraries that run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evfi.errors import ConfigError, ModelError
from evfi.events.stacks import StackConfig
from evfi.models.layouts import BUNDLE_FILE
from evfi.models.weights import read_json

BUNDLE_FORMAT: Final = 1


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
        ModelError: the file is missing, damaged or incomplete.
    """
    meta = read_json(folder / BUNDLE_FILE)
    if meta.get("format") != BUNDLE_FORMAT:
        raise ModelError(
            f"{folder / BUNDLE_FILE} has format {meta.get('format')!r}, this version reads {BUNDLE_FORMAT}; update evfi"
        )
    try:
        info = ModelInfo(**{name: meta[name] for name in ModelInfo.__dataclass_fields__})
        event_stack = StackConfig(**meta["event_stack"])
        sampling = dict(meta["sampling"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(
            f"{folder / BUNDLE_FILE} is incomplete or has unknown entries ({error}); fetch it again"
        ) from error
    return info, event_stack, sampling
