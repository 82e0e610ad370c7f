"""Where model files come from: a folder, a zip archive, the cache folder, or the Hugging Face hub.

Everything here ends in a local folder or in a `ModelError`. The hub is asked only inside these functions, only for JSON and
safetensors files, and never when `HF_HUB_OFFLINE` is set. Files fetched by hand are found in `<cache>/models/`; the cache is
`$EVFI_CACHE`, else `$XDG_CACHE_HOME/evfi`, else `~/.cache/evfi`.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from evfi.errors import ModelError
from evfi.files import cache_folder
from evfi.models.archives import unpack_controlnet
from evfi.models.layouts import controlnet_folder, holds_controlnet
from evfi.paths import expanded, is_file, is_folder

CONTROLNET_PATTERNS = ("*.json", "*.safetensors")
"""Of a hub repository; the stars match sub-folders too."""

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_log = logging.getLogger(__name__)


def models_folder() -> Path:
    """Where model files fetched by hand are looked for."""
    return cache_folder() / "models"


def is_hub_id(text: str) -> bool:
    """Whether the text has the form `owner/name`."""
    return _HUB_ID.fullmatch(text) is not None


def resolve_controlnet(path_or_id: str | Path) -> Path:
    """A local folder with a ControlNet's config.json and safetensors files.

    Args:
        path_or_id: a folder, a folder whose `controlnet/` or `checkpoint-N/controlnet/` holds the files (the latest N is
            taken), a zip archive of one, or a hub id `owner/name`. What exists on disk is taken before the hub.

    Raises:
        ModelError: there is no such thing, it holds no ControlNet, only pickled weights, or is damaged.
        ResourceError: a zip archive does not fit on the disk.
    """
    path = expanded(path_or_id)
    if is_folder(path):
        return _announced(controlnet_folder(path), path)
    if is_file(path):
        if not zipfile.is_zipfile(path):
            raise ModelError(f"expected a folder or a zip archive with a ControlNet, found another file: {path}")
        return unpack_controlnet(path, cache_folder() / "controlnets")
    if isinstance(path_or_id, str) and is_hub_id(path_or_id):
        snapshot = fetch_from_hub(path_or_id, CONTROLNET_PATTERNS, holds_controlnet)
        return _announced(controlnet_folder(snapshot), snapshot)
    raise ModelError(f"no ControlNet at {path_or_id}: expected a folder, a zip archive or a hub id owner/name")


def _announced(chosen: Path, given: Path) -> Path:
    if chosen.parent.name.startswith("checkpoint-"):
        _log.info("using %s of %s, its latest checkpoint", chosen.relative_to(given), given)
    return chosen


def fetch_from_hub(
    hub_id: str, patterns: Sequence[str], complete: Callable[[Path], bool], *, note: str = "licence: see its page"
) -> Path:
    """The local snapshot of a hub repository's files, downloaded unless it is there already.

    Args:
        hub_id: `owner/name`.
        patterns: of the files to download; JSON and safetensors only.
        complete: whether a snapshot folder holds what is needed; a cached one that does is used as it is.
        note: size and licence, for the log when a download begins.

    Raises:
        ModelError: with the reason, when it is neither cached nor can be downloaded.
    """
    from huggingface_hub import snapshot_download

    assert all(pattern.endswith((".json", ".safetensors")) for pattern in patterns), patterns
    cached = _cached_snapshot(hub_id)
    if cached is not None and complete(cached):
        return cached
    _log.info("downloading %s from the Hugging Face hub; %s", hub_id, note)
    try:
        snapshot = Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client lets several HTTP libraries' errors through
        raise ModelError(f"{hub_id} could not be downloaded from the Hugging Face hub ({_reason(error)})") from error
    if not complete(snapshot):
        raise ModelError(
            f"{hub_id} was downloaded from the Hugging Face hub, but lacks the expected files ({snapshot})"
        )
    return snapshot


def _cached_snapshot(hub_id: str) -> Path | None:
    """The newest snapshot in the hub's cache, complete or not; touches no network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["model_index.json"], local_files_only=True))
    except (OSError, ValueError):
        return None


def _reason(error: Exception) -> str:
    """The hub's error in a few words."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "its licence must be accepted on its page and a login is needed: run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or you have no access to it"
    text = " ".join(str(error).split())
    if "HF_HUB_OFFLINE" in text:
        return "HF_HUB_OFFLINE is set"
    if "ConnectError" in text or "locate the files on the Hub" in text:
        return "the hub cannot be reached"
    return f"{type(error).__name__}: {text[:160]}"
