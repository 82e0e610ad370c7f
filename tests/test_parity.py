"""The checks of `scripts/check_parity.py`, on the reference numbers and on what the checker itself must notice."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evfi.errors import InputError
from evfi.sampling.config import SamplingConfig

SCRIPT = Path(__file__).parents[1] / "scripts/check_parity.py"
sys.path.insert(0, str(SCRIPT.parent))

from parity import CHECKERS, ReferenceFolder, StoredNoise, check_file, check_folder, compare  # noqa: E402


@pytest.fixture(scope="session")
def reference(shared_dir: Path) -> ReferenceFolder:
    folder = shared_dir / "golden"
    if not folder.is_dir():
        pytest.skip(f"reference numbers absent ({folder})")
    return ReferenceFolder(folder)


@pytest.mark.parametrize("pattern", CHECKERS)
def test_reference_numbers_are_reproduced(reference: ReferenceFolder, pattern: str) -> None:
    files = sorted(reference.path.glob(pattern))
    if not files:
        pytest.skip(f"no {pattern} in {reference.path}")
    checks = [check for file in files for check in check_file(reference, file, CHECKERS[pattern])]
    assert checks
    assert [check for check in checks if not check.passed] == []


def test_an_empty_folder_is_all_absent(tmp_path: Path) -> None:
    checks = list(check_folder(tmp_path))
    assert [check.item for check in checks] == list(CHECKERS)
    assert {check.status for check in checks} == {"absent"}


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of reference numbers"):
        list(check_folder(tmp_path / "nowhere"))


def test_unreadable_files_fail_and_the_others_are_still_checked(tmp_path: Path) -> None:
    (tmp_path / "event_stacks.safetensors").write_bytes(b"nonsense")
    (tmp_path / "pipeline_lonely.json").write_text("{}")
    (tmp_path / "tile_views_64x64.json").write_text(
        json.dumps({"64x120@0.5": [[0, 0, 8, 8], [4, 0, 12, 8], [7, 0, 15, 8]]})
    )
    status = {check.item: check.status for check in check_folder(tmp_path) if check.status != "absent"}
    assert status == {
        "event_stacks.safetensors": "FAILED",
        "tile_views_64x64": "ok",
        "pipeline_lonely.json": "FAILED",
    }


def test_files_without_a_case_fail(tmp_path: Path) -> None:
    (tmp_path / "tile_views_64x64.json").write_text("{}")
    save_file({"other": torch.zeros(1)}, tmp_path / "event_stacks.safetensors")
    checks = [check for check in check_folder(tmp_path) if check.status != "absent"]
    assert {(check.status, check.note) for check in checks} == {("FAILED", "holds nothing to compare with")}
    assert len(checks) == 2


def test_wrong_numbers_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "tile_views_64x64.json").write_text(json.dumps({"64x64@0.5": [[0, 0, 8, 9]]}))
    (check,) = (check for check in check_folder(tmp_path) if check.status != "absent")
    assert (check.status, check.note) == ("OFF", "1 frame sizes and overlaps, first off: 64x64@0.5")


@pytest.mark.parametrize("value", [1.1, float("nan"), float("inf")])
def test_comparing(value: float) -> None:
    assert compare("same", torch.ones(3), torch.ones(3), 0.0).passed
    assert not compare("value", torch.tensor([1.0, value]), torch.ones(2), 1e-3).passed
    assert not compare("shape", torch.ones(1, 3), torch.ones(3), 1.0).passed
    assert compare("relative", torch.tensor([1000.0, 0.01]), torch.tensor([1000.0, 0.0]), 1e-4, relative=True).passed


def test_a_changed_reference_is_off(reference: ReferenceFolder, tmp_path: Path) -> None:
    tensors = load_file(reference.path / "event_stacks.safetensors")
    tensors["tiny.forward"] = tensors["tiny.forward"] + 1e-3
    save_file(tensors, tmp_path / "event_stacks.safetensors")
    checks = check_file(reference, tmp_path / "event_stacks.safetensors", CHECKERS["event_stacks.safetensors"])
    assert [check.item for check in checks if not check.passed] == ["event stacks tiny forward"]


def test_latents_that_are_off_come_with_what_rounding_does(reference: ReferenceFolder, tmp_path: Path) -> None:
    name = "pipeline_one_tile"
    tensors = load_file(reference.path / f"{name}.safetensors")
    save_file({**tensors, "latents": tensors["latents"] + 0.01}, tmp_path / f"{name}.safetensors")
    (tmp_path / f"{name}.json").write_text((reference.path / f"{name}.json").read_text())
    latents, frames = check_file(reference, tmp_path / f"{name}.json", CHECKERS["pipeline_*.json"])
    assert (latents.status, frames.status) == ("OFF", "ok")
    assert "a relative change of 1e-06 in the first noise changes them by " in latents.note


def test_the_script_tells_by_its_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exit_status() -> object:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.value.code

    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path)])
    (tmp_path / "tile_views_64x64.json").write_text(json.dumps({"64x64@0.5": [[0, 0, 8, 8]]}))
    assert exit_status() == 0
    assert "1 compared, 0 off" in capsys.readouterr().out
    (tmp_path / "tile_views_64x64.json").write_text("{}]")
    assert exit_status() == 1
    assert "FAILED" in capsys.readouterr().out


def test_stored_noise_is_given_in_the_order_of_its_draws() -> None:
    config = SamplingConfig(reinjection_until_step=2, num_reinjections=2)
    stored = {"reinjection_noise": torch.arange(4.0).view(4, 1, 1).expand(4, 1, 3), "initial_noise": torch.ones(1, 3)}
    noise = StoredNoise(stored, config)
    assert noise.draw("reinjection", (3,), step=1, repeat=0).tolist() == [2.0, 2.0, 2.0]
    assert noise.draw("initial", (3,)).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="the settings need 1 draws of churn noise, 0 are stored"):
        noise.draw("churn", (3,))
