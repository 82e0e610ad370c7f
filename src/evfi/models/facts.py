"""What is to be known of a model before, or without, loading its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evfi.fingerprints import files_of, fingerprint_of_files
from evfi.models.info import read_bundle_facts
from evfi.models.registry import BundleFolder, resolve_model


@dataclass(frozen=True)
class ModelFacts:
    """A model, unloaded.

    Attributes:
        name: what users call it.
        num_frames: frames per window that it was trained with, key frames included.
        sampling: its own defaults of `SamplingConfig`.
        fingerprint: of its files apart from model cards, 64 hexadecimal digits.
        places: the folders that it is read from.
    """

    name: str
    num_frames: int
    sampling: Mapping[str, Any]
    fingerprint: str
    places: tuple[Path, ...] = ()


def packaged_sampling(name: str) -> dict[str, Any]:
    """A packaged model's own defaults of `SamplingConfig`.

    Args:
        name: of a model of the registry that is in the package.

    Raises:
        ModelError: it is missing or damaged.
    """
    source = resolve_model(name)
    assert isinstance(source, BundleFolder)
    return read_bundle_facts(source.path)[2]


def model_facts(name_or_path: str | Path) -> ModelFacts:
    """Find a model's files and read what they say; they are fetched where they are missing.

    Args:
        name_or_path: see `evfi.models.registry.resolve_model`.

    Raises:
        ModelError: the model cannot be found or fetched, or is damaged.
        InputError: a file cannot be read.
    """
    source = resolve_model(name_or_path)
    if isinstance(source, BundleFolder):
        info, _, sampling = read_bundle_facts(source.path)
        return ModelFacts(info.name, info.num_frames, sampling, _fingerprint((source.path,)), (source.path,))
    fingerprint = _fingerprint(source.folders)
    return ModelFacts(source.info.name, source.info.num_frames, source.sampling, fingerprint, source.folders)


def _fingerprint(folders: Sequence[Path]) -> str:
    """Of all files but model cards, whose wording changes no frame."""
    cards = [file for folder in folders for file in files_of(folder) if file.suffix.lower() == ".md"]
    return fingerprint_of_files(folders, cards)
