"""Named models: where their files come from, under which licence, and how to load them.

    name         base                                            ControlNet
    evfi-tiny    in the package                                  in the package
    vdm-evfi     stabilityai/stable-video-diffusion-img2vid      jxAIbot/VDM_EVFI (5 frames)
    vdm-evfi-13  the same                                        jxAIbot/VDM_EVFI_VIDEO (13 frames)

Those on Stable Video Diffusion get evfi-tiny's refiner.

`resolve_model` turns a name, a folder, a zip archive or a hub id into local folders (a `ModelSource`); `load_model` loads
them. Files are looked for, in this order: in the package, in the folder for files fetched by hand (`sources.models_folder`),
in the hub's cache, on the hub.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from evfi.errors import ModelError
from evfi.events.stack_config import StackConfig
from evfi.models.info import ModelInfo
from evfi.models.layouts import REFINER_FOLDER, controlnet_folder, holds_controlnet, is_base, is_bundle
from evfi.models.sources import CONTROLNET_PATTERNS, fetch_from_hub, is_hub_id, models_folder, resolve_controlnet
from evfi.paths import expanded, is_file, is_folder

if TYPE_CHECKING:
    import torch

    from evfi.models.bundle import ModelBundle

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """A part of a model that has to be fetched: what, how large, under which licence, and where it may be put.

    Attributes:
        what: the part, in words.
        hub_id: its repository on the Hugging Face hub.
        patterns: the files of that repository that are needed.
        size_gb: their size, in 10^9 bytes.
        licence: in a few words, for error messages and for the bundle's info.
        page: where the licence is read and accepted.
        places: folders or archives of `models_folder()` that are taken instead of the hub's.
        elsewhere: another place to fetch it from, in words; empty: none.
    """

    what: str
    hub_id: str
    patterns: tuple[str, ...]
    size_gb: float
    licence: str
    page: str
    places: tuple[str, ...]
    elsewhere: str = ""


@dataclass(frozen=True)
class RegisteredModel:
    """One named model.

    Attributes:
        name: what users call it.
        num_frames: frames per window that it was trained with, key frames included.
        summary: one line for lists of models.
        licence: of all its weights together, in a few words.
        source: who made the weights.
        packaged: its folder inside the package, as parts below `evfi`; empty: it must be fetched.
        base: the base model to fetch.
        controlnet: the ControlNet to fetch.
        event_stack: the event representation that the ControlNet was trained with.
        sampling: defaults that differ from the sampler's.
    """

    name: str
    num_frames: int
    summary: str
    licence: str
    source: str
    packaged: tuple[str, ...] = ()
    base: Download | None = None
    controlnet: Download | None = None
    event_stack: StackConfig = field(default_factory=StackConfig)
    sampling: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class BundleFolder:
    """A local bundle; all that is to be known of the model stands in its `evfi.json`."""

    path: Path


@dataclass(frozen=True)
class Parts:
    """Local folders of a base model, of a ControlNet and of a refiner (None: none), with what their files do not say."""

    base: Path
    controlnet: Path
    refiner: Path | None
    info: ModelInfo
    event_stack: StackConfig
    sampling: Mapping[str, Any]

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders that the model's frames depend on."""
        return (self.base, self.controlnet, *(() if self.refiner is None else (self.refiner,)))


ModelSource: TypeAlias = BundleFolder | Parts


_SVD_NETWORKS = ("unet", "vae", "image_encoder")
_SVD = Download(
    what="base weights",
    hub_id="stabilityai/stable-video-diffusion-img2vid",
    patterns=("*.json", "*.fp16.safetensors"),
    size_gb=4.5,
    licence="Stability AI Community License",
    page="https://huggingface.co/stabilityai/stable-video-diffusion-img2vid",
    places=("stable-video-diffusion-img2vid",),
)


def _released_controlnet(hub_id: str, name: str, archive: str) -> Download:
    return Download(
        what="event ControlNet",
        hub_id=hub_id,
        patterns=CONTROLNET_PATTERNS,
        size_gb=2.7,
        licence="none stated by its authors",
        page=f"https://huggingface.co/{hub_id}",
        places=(name, archive),
        elsewhere=f"{archive} of the authors' Google Drive folder, linked from https://github.com/codingrex/VDM_EVFI",
    )


_TINY = ("weights", "evfi-tiny")
_REFINER_LICENCE = "refiner: Apache-2.0"
_RELEASED_LICENCE = (
    f"base: Stability AI Community License; event ControlNet: none stated by its authors; {_REFINER_LICENCE}"
)

MODELS: Mapping[str, RegisteredModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            RegisteredModel(
                name="evfi-tiny",
                num_frames=9,
                summary="small model of the same architecture, in the package; runs on a CPU",
                licence="Apache-2.0",
                source="trained by the evfi project from rendered scenes; see its model card",
                packaged=_TINY,
            ),
            RegisteredModel(
                name="vdm-evfi",
                num_frames=5,
                summary="Stable Video Diffusion with the published event ControlNet, 5 frames per window",
                licence=_RELEASED_LICENCE,
                source="stabilityai/stable-video-diffusion-img2vid + jxAIbot/VDM_EVFI",
                base=_SVD,
                controlnet=_released_controlnet("jxAIbot/VDM_EVFI", "vdm-evfi", "5frames.zip"),
            ),
            RegisteredModel(
                name="vdm-evfi-13",
                num_frames=13,
                summary="the same, with the ControlNet fine-tuned for 13 frames per window",
                licence=_RELEASED_LICENCE,
                source="stabilityai/stable-video-diffusion-img2vid + jxAIbot/VDM_EVFI_VIDEO",
                base=_SVD,
                controlnet=_released_controlnet("jxAIbot/VDM_EVFI_VIDEO", "vdm-evfi-13", "13frames.zip"),
            ),
        )
    }
)
"""Every named model."""


def load_model(
    name_or_path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> ModelBundle:
    """Load a model by name, from a folder, a zip archive or the hub.

    Weights are read tensor by tensor onto the device, in `dtype`, so that no more than the model itself is held.

    Args:
        name_or_path: see `resolve_model`.
        dtype: of the networks; None keeps the files'.
        device: where they shall lie.

    Raises:
        ModelError: it cannot be found, fetched or read, or its parts do not fit each other.
    """
    from evfi.models.bundle import assemble, load_bundle  # heavy; facts about a model do not need it

    source = resolve_model(name_or_path)
    if isinstance(source, BundleFolder):
        bundle = load_bundle(source.path, dtype=dtype, device=device)
    else:
        bundle = assemble(
            source.base,
            source.controlnet,
            source.refiner,
            info=source.info,
            event_stack=source.event_stack,
            sampling=dict(source.sampling),
            dtype=dtype,
            device=device,
        )
    _log.info("model %s; licence: %s; source: %s", bundle.info.name, bundle.info.licence, bundle.info.source)
    return bundle


def resolve_model(name_or_path: str | Path) -> ModelSource:
    """Find a model's files, fetching from the hub what is not on this machine.

    Args:
        name_or_path: a name of `MODELS`; a bundle's folder; a folder in diffusers' layout that also holds a ControlNet; a
            ControlNet alone (a folder or zip archive, see `resolve_controlnet`), which goes onto Stable Video Diffusion; or the
            hub id of any of these folders. Names go before folders, folders before hub ids.

    Raises:
        ModelError: nothing is there, or a download is missing: then the message says what to fetch, how large it is, where to
            put it, and which licence to accept.
    """
    text = str(name_or_path)
    if text in MODELS:
        return _resolve_registered(MODELS[text])
    path = expanded(name_or_path)
    if is_folder(path):
        return _resolve_folder(path, path.name, text)
    if is_file(path) and zipfile.is_zipfile(path):
        return _on_svd(resolve_controlnet(path), _closest(path.name), path.stem, text)
    if not is_folder(path) and not is_file(path) and is_hub_id(text):
        try:
            snapshot = fetch_from_hub(text, CONTROLNET_PATTERNS, _is_any_model)
        except ModelError as error:
            raise ModelError(
                f"no folder {text!r} here, and {error}; name one of {', '.join(MODELS)} or a folder"
            ) from error
        return _resolve_folder(snapshot, text, text)
    raise ModelError(
        f"no model {text!r}: expected one of {', '.join(MODELS)}, a folder, a zip archive or a hub id owner/name"
    )


def _resolve_registered(model: RegisteredModel) -> ModelSource:
    if model.packaged:
        folder = Path(str(files("evfi").joinpath(*model.packaged)))
        if not is_bundle(folder):
            raise ModelError(f"{model.name} is missing from this installation ({folder}); reinstall evfi")
        return BundleFolder(folder)
    assert model.base is not None
    assert model.controlnet is not None
    finders: tuple[Callable[[], Path], ...] = (
        partial(_find_base, model.base),
        partial(_find_controlnet, model.controlnet),
    )
    base, controlnet = _all_found(model.name, finders)
    return Parts(base, controlnet, _packaged_refiner(), _info(model), model.event_stack, model.sampling)


def _packaged_refiner() -> Path:
    """The refiner of evfi-tiny, which full-size models get too: it works on pictures, whatever network made them."""
    folder = Path(str(files("evfi").joinpath(*_TINY, REFINER_FOLDER)))
    if not folder.is_dir():
        raise ModelError(f"the refiner is missing from this installation ({folder}); reinstall evfi")
    return folder


def _all_found(name: str, finders: Sequence[Callable[[], Path]]) -> list[Path]:
    """Run every finder; what is missing is said in one message, so that the user need not come back for the second part."""
    found, missing = [], []
    for find in finders:
        try:
            found.append(find())
        except ModelError as error:
            missing.append(str(error))
    if missing:
        raise ModelError(f"model {name} is incomplete on this machine: {'; and: '.join(missing)}")
    return found


def _find_base(download: Download) -> Path:
    complete = partial(is_base, networks=_SVD_NETWORKS)
    for place in download.places:
        if complete(models_folder() / place):
            return models_folder() / place
    return _fetch(download, complete)


def _find_controlnet(download: Download) -> Path:
    for place in download.places:
        if (models_folder() / place).exists():
            return resolve_controlnet(models_folder() / place)
    return controlnet_folder(_fetch(download, holds_controlnet))


def _fetch(download: Download, complete: Callable[[Path], bool]) -> Path:
    try:
        note = f"{download.size_gb:g} GB, licence: {download.licence}, see {download.page}"
        return fetch_from_hub(download.hub_id, download.patterns, complete, note=note)
    except ModelError as error:
        raise ModelError(f"{error}; {_instructions(download)}") from error


def _instructions(download: Download) -> str:
    """What to fetch, how large it is, where to put it, and which licence to accept."""
    elsewhere = f" (or {download.elsewhere})" if download.elsewhere else ""
    include = " ".join(f"'{pattern}'" for pattern in download.patterns)
    places = " or ".join(str(models_folder() / place) for place in download.places)
    return (
        f"it is the {download.what}, {download.size_gb:g} GB, licence: {download.licence}; accept the terms on "
        f"{download.page}, then download it with `hf download {download.hub_id} --include {include}`{elsewhere} "
        f"or put it at {places}"
    )


def _resolve_folder(folder: Path, name: str, source: str) -> ModelSource:
    """A local folder: a bundle, a base model with a ControlNet in it, or a ControlNet alone."""
    if is_bundle(folder):
        return BundleFolder(folder)
    controlnet, closest = controlnet_folder(folder), _closest(name)
    if is_base(folder):
        info = ModelInfo(name, "not stated", source, closest.num_frames)
        own = folder / REFINER_FOLDER
        refiner = own if own.is_dir() else None
        return Parts(folder, controlnet, refiner, info, closest.event_stack, closest.sampling)
    return _on_svd(controlnet, closest, name, source)


def _on_svd(controlnet: Path, closest: RegisteredModel, name: str, source: str) -> Parts:
    """A ControlNet alone, put onto Stable Video Diffusion."""
    (base,) = _all_found(name, [partial(_find_base, _SVD)])
    licence = f"base: {_SVD.licence}; event ControlNet: not stated; {_REFINER_LICENCE}"
    info = ModelInfo(name, licence, source, closest.num_frames)
    return Parts(base, controlnet, _packaged_refiner(), info, closest.event_stack, closest.sampling)


def _closest(name: str) -> RegisteredModel:
    """The published model whose ControlNet has this file name, folder name or hub id, for what its files do not say."""
    for model in MODELS.values():
        if model.controlnet is not None and name in (model.controlnet.hub_id, *model.controlnet.places):
            return model
    return MODELS["vdm-evfi"]


def _is_any_model(folder: Path) -> bool:
    return is_bundle(folder) or holds_controlnet(folder)


def _info(model: RegisteredModel) -> ModelInfo:
    return ModelInfo(model.name, model.licence, model.source, model.num_frames)
