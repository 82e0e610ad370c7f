"""Full training states as folders of safetensors and JSON, written whole or not at all.

    STATES/step-0000500/state.safetensors   everything that the next step depends on but its number
    STATES/step-0000500/state.json          the number of steps, and the SHA-256 of the other file

A state holds weights, their moving average, the optimiser's moments and the step. Random draws are made from (seed, stage,
step), so that they need no saving and a resumed run continues exactly. States are written in a private folder, brought to the
disk, and renamed. A folder counts as a state by its content; no other is replaced or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from evfi.errors import InputError, OutputError
from evfi.files import one_line, remove_leftovers, set_aside, temporary_beside
from evfi.plain_json import read_json

_NAME: Final = re.compile(r"step-(\d{7,})")
_TENSORS_FILE: Final = "state.safetensors"
_FACTS_FILE: Final = "state.json"
_MAX_FACTS_BYTES: Final = 4096
_DAMAGE: Final = (SafetensorError, OSError, KeyError, TypeError, ValueError, ArithmeticError, RuntimeError)
"""What reading a damaged state raises (too deep a nesting is a `RuntimeError`)."""


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

    A sound state of the same step stays: it is the same, for a state depends on the run and its step alone. Replaced, it would
    be missing for a moment, and a run that is killed then would have none.

    Raises:
        OutputError: it cannot be written; earlier states are all there.
    """
    target = folder / f"step-{step:07d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, lambda name: _NAME.fullmatch(name) is not None)  # of a run that was killed
        with temporary_beside(target) as partial:
            partial.mkdir()
            tensors: dict[str, Tensor] = {f"network.{name}": value for name, value in trained(network).items()}
            tensors |= {f"average.{name}": value for name, value in average.values.items()}
            tensors |= _optimizer_tensors(network, optimizer)
            file = partial / _TENSORS_FILE
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, file)
            facts = json.dumps({"step": step, "sha256": digest_on_disk(file)})
            (partial / _FACTS_FILE).write_text(facts + "\n", encoding="utf-8")
            digest_on_disk(partial / _FACTS_FILE)
            if os.path.lexists(target) and not _is_sound(target):
                set_aside(target)
            if not os.path.lexists(target):
                partial.replace(target)
        for old in [state for state in saved_states(folder) if _is_state(state)][:-keep]:
            _remove_state(old)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"training state {target} cannot be written: {one_line(error)}; is the disk full? Earlier saved states are safe: "
            "free space or fix the permissions, then run the same command to resume"
        ) from error
    return target


def saved_states(folder: Path) -> list[Path]:
    """States below `folder` that have both files, oldest first; what is in them is not looked at."""
    return [path for path in _states(folder) if all((path / name).is_file() for name in (_TENSORS_FILE, _FACTS_FILE))]


def holds_state(folder: Path) -> bool:
    """Whether something below a folder is a state by its content."""
    return any(_is_state(path) for path in _states(folder))


def resume(
    folder: Path, network: nn.Module, average: MovingAverage, optimizer: Optimizer
) -> tuple[int, list[tuple[Path, str]]]:
    """Restore the latest sound state in place.

    Args:
        folder: of states; it may be missing or empty.
        network: whose trained parameters are restored.
        average: of these.
        optimizer: of these.

    Returns:
        The number of steps done, 0 where there is no state; and later states that are damaged, each with one line on it.

    Raises:
        InputError: there are states, and none of them can be resumed.
    """
    damaged: list[tuple[Path, str]] = []
    for state in reversed(_states(folder)):
        try:
            return load_state(state, network, average, optimizer), damaged
        except InputError as error:
            damaged.append((state, str(error)))
    if damaged:
        raise InputError(
            f"{damaged[0][1]}, and so is every other one in {folder}; move them away to start over, or choose another --output"
        )
    return 0, damaged


def load_state(state: Path, network: nn.Module, average: MovingAverage, optimizer: Optimizer) -> int:
    """Restore a state in place.

    Returns:
        The number of steps done.

    Raises:
        InputError: it is damaged or belongs to networks of other sizes.
    """
    try:
        facts = _facts_of(state)
        if facts.get("sha256") not in (None, digest_of(state / _TENSORS_FILE)):  # states of older versions have none
            raise ValueError("its checksum does not match")
        tensors = load_file(state / _TENSORS_FILE)
        _assign(trained(network), _below(tensors, "network."))
        _assign(average.values, _below(tensors, "average."))
        _restore_optimizer(network, optimizer, tensors)
    except _DAMAGE as error:
        raise InputError(
            f"training state {state} cannot be resumed ({one_line(error)}): it is damaged or belongs to other networks"
        ) from error
    return int(facts["step"])


def digest_of(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_on_disk(file: Path) -> str:
    """SHA-256 of a file that was just written, after it was brought to the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
    return digest_of(file)


def _states(folder: Path) -> list[Path]:
    """Folders with names of states that have at least one of their files, oldest first."""
    found: list[tuple[int, Path]] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        is_folder = name is not None and path.is_dir() and not path.is_symlink()
        if name is not None and is_folder and any((path / one).exists() for one in (_TENSORS_FILE, _FACTS_FILE)):
            found.append((int(name[1]), path))
    return [path for _, path in sorted(found)]


def _facts_of(state: Path) -> dict[str, Any]:
    """What a state says of itself; raises one of `_DAMAGE` where it says nothing sensible."""
    facts = read_json(state / _FACTS_FILE, _MAX_FACTS_BYTES)
    if not isinstance(facts, dict) or f"step-{int(facts['step']):07d}" != state.name:
        raise ValueError(f"its {_FACTS_FILE} is from another step")
    return facts


def _is_state(path: Path) -> bool:
    """Whether there is a state's two files in a folder, and nothing else."""
    try:
        entries = {entry.name: entry for entry in path.iterdir()}
        if path.is_symlink() or entries.keys() != {_TENSORS_FILE, _FACTS_FILE}:
            return False
        if any(entry.is_symlink() or not entry.is_file() for entry in entries.values()):
            return False
        _facts_of(path)
        with safe_open(path / _TENSORS_FILE, framework="pt") as file:
            return any(name.startswith("network.") for name in file.keys())  # noqa: SIM118 - not a dict
    except _DAMAGE:
        return False


def _is_sound(path: Path) -> bool:
    """Whether there is a state in a folder whose checksum fits."""
    try:
        return _is_state(path) and _facts_of(path).get("sha256") in (None, digest_of(path / _TENSORS_FILE))
    except _DAMAGE:
        return False


def _remove_state(state: Path) -> None:
    """Remove a state; what a run that is killed meanwhile leaves of it, the next one removes."""
    with temporary_beside(state) as gone:
        state.replace(gone)


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
