"""Full training states as folders of safetensors and JSON, written whole or not at all.

A state holds everything that the next step depends on: weights, their moving average, the optimiser's moments and the step.
Random draws are made from (seed, stage, step), so that they need no saving and a resumed run continues exactly.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from evfi.errors import InputError, OutputError
from evfi.files import one_line

_PREFIX = "step-"


class MovingAverage:
    """Exponential moving average of a network's parameters, with a warm-up so that early steps do not linger."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone().float() for name, value in trained(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the parameters after optimiser step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [value.detach().float() for value in trained(network).values()]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)

    @contextlib.contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Give the network the averaged parameters for a while."""
        parameters = trained(network)
        kept = {name: value.detach().clone() for name, value in parameters.items()}
        _assign(parameters, self.values)
        try:
            yield
        finally:
            _assign(parameters, kept)


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves; frozen ones are not part of a state."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


@torch.no_grad()
def _assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    if parameters.keys() != values.keys():
        odd = sorted(parameters.keys() ^ values.keys())[0]
        raise ValueError(f"parameter {odd} is on one side only")
    for name, value in values.items():
        parameters[name].copy_(value)


def save_state(
    folder: Path, step: int, network: nn.Module, average: MovingAverage, optimizer: Optimizer, keep: int
) -> Path:
    """Write the state after `step` steps below `folder` and remove all but the `keep` latest.

    Raises:
        OutputError: it cannot be written.
    """
    target = folder / f"{_PREFIX}{step:07d}"
    partial = folder / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors: dict[str, Tensor] = {f"network.{name}": value for name, value in trained(network).items()}
        tensors |= {f"average.{name}": value for name, value in average.values.items()}
        tensors |= _optimizer_tensors(network, optimizer)
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial / "state.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
        for old in saved_states(folder)[:-keep]:
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"training state {target} cannot be written: {one_line(error)}; is the disk full?") from error
    return target


def saved_states(folder: Path) -> list[Path]:
    """Complete states below `folder`, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file())


def load_state(state: Path, network: nn.Module, average: MovingAverage, optimizer: Optimizer) -> int:
    """Restore a state in place.

    Returns:
        The number of steps done.

    Raises:
        InputError: it is damaged or belongs to networks of other sizes.
    """
    try:
        tensors = load_file(state / "state.safetensors")
        step = int(json.loads((state / "state.json").read_text(encoding="utf-8"))["step"])
        _assign(trained(network), _below(tensors, "network."))
        _assign(average.values, _below(tensors, "average."))
        _restore_optimizer(network, optimizer, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"training state {state} cannot be resumed ({one_line(error)}); it is damaged or of other networks: remove it"
        ) from error
    return step


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in trained(network).items()}
    tensors: dict[str, Tensor] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{key}.{names[parameter]}"] = torch.as_tensor(value)
    return tensors


def _restore_optimizer(network: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = trained(network)
    optimizer.state.clear()
    for name, value in _below(tensors, "optimizer.").items():
        key, _, parameter = name.partition(".")
        owner = parameters[parameter]
        # moments must lie in memory as their parameter does, channels last or not
        optimizer.state[owner][key] = value if key == "step" else torch.empty_like(owner).copy_(value)
