"""Models are found by name, folder, archive and hub id; what is missing is said; nothing is fetched that was not asked for."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from huggingface_hub import constants as hub_constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from evfi.errors import ModelError, ResourceError
from evfi.events.stacks import StackConfig
from evfi.fingerprints import weights_fingerprint
from evfi.models import archives, facts, registry
from evfi.models.bundle import ModelBundle
from evfi.models.controlnet import EventControlNet
from evfi.models.info import ModelInfo
from evfi.models.registry import MODELS, BundleFolder, Parts, load_model, resolve_model
from evfi.models.sources import models_folder, resolve_controlnet
from evfi.models.unet import EventUNet
from killed import killed_while_writing

HUB_ID = "somebody/some-model"


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's caches or the network."""
    monkeypatch.setenv("EVFI_CACHE", str(tmp_path / "evfi-cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def tiny_bundle() -> ModelBundle:
    torch.manual_seed(0)
    widths = {
        "block_out_channels": (32, 64),
        "num_attention_heads": (2, 4),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
    }
    times = {"addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96}
    unet = EventUNet(
        in_channels=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        **widths,
        **times,
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        upsampling_scaling_factor=2,
    )
    return ModelBundle(
        vae=vae,
        unet=unet,
        controlnet=EventControlNet.from_unet(unet, conditioning_channels=6, conditioning_embedding_out_channels=(8, 8)),
        scheduler={"sigma_min": 0.002, "sigma_max": 700.0},
        event_stack=StackConfig(),
        info=ModelInfo(name="test-model", licence="Apache-2.0", source="random numbers", num_frames=3),
        sampling={"num_inference_steps": 2},
    )


def packaged_refiner() -> Path:
    source = resolve_model("evfi-tiny")
    assert isinstance(source, BundleFolder)
    return source.path / "refiner"


def write_controlnet(folder: Path, *, weights: str = "diffusion_pytorch_model.safetensors", value: float = 0.0) -> Path:
    """Files that have a ControlNet's names, with next to nothing in them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    if weights.endswith(".safetensors"):
        save_file({"some.weight": torch.full((64,), value)}, folder / weights)
    else:
        (folder / weights).write_bytes(b"\x80\x04N.")
    return folder


def write_zip(archive: Path, folder: Path, *, root: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                opened.write(path, f"{root}{path.relative_to(folder).as_posix()}")
    return archive


def write_hub_cache(folder: Path, hub_id: str, cache: Path) -> None:
    """Put a folder into the hub's cache as if it had been downloaded."""
    storage = cache / f"models--{hub_id.replace('/', '--')}"
    revision = "0" * 40
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text(revision, encoding="utf-8")
    (storage / "snapshots").mkdir()
    folder.rename(storage / "snapshots" / revision)


class TestNames:
    def test_the_names_that_users_know(self) -> None:
        assert list(MODELS) == ["evfi-tiny", "vdm-evfi", "vdm-evfi-13"]
        assert [model.num_frames for model in MODELS.values()] == [9, 5, 13]

    def test_every_model_states_licence_and_source(self) -> None:
        for model in MODELS.values():
            assert model.licence
            assert model.source
            for part in (model.base, model.controlnet):
                assert part is None or (part.licence and part.page.startswith("https://") and part.size_gb > 1)

    def test_the_packaged_model(self) -> None:
        loaded, entry = load_model("evfi-tiny"), MODELS["evfi-tiny"]
        assert loaded.info.name == entry.name
        assert loaded.info.licence == entry.licence == "Apache-2.0"
        assert loaded.info.num_frames == entry.num_frames

    def test_only_json_and_safetensors_would_be_fetched(self) -> None:
        parts = [part for model in MODELS.values() for part in (model.base, model.controlnet) if part is not None]
        assert len(parts) == 4
        assert all(pattern.endswith((".json", ".safetensors")) for part in parts for pattern in part.patterns)

    @pytest.mark.parametrize("name", ["vdm-evfi", "vdm-evfi-13"])
    def test_missing_download_says_what_size_where_and_licence(self, name: str) -> None:
        with pytest.raises(ModelError) as caught:
            resolve_model(name)
        message = str(caught.value)
        assert "\n" not in message
        for part in (MODELS[name].base, MODELS[name].controlnet):
            assert part is not None
            assert f"hf download {part.hub_id}" in message
            assert f"{part.size_gb} GB" in message
            assert part.licence in message
            assert part.page in message
            assert str(models_folder() / part.places[0]) in message
        assert "HF_HUB_OFFLINE is set" in message

    def test_files_put_by_hand_are_found(self, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
        base = models_folder() / "stable-video-diffusion-img2vid"
        tiny_bundle.save(base)
        write_controlnet(base / "image_encoder", weights="model.safetensors")
        archive = write_zip(
            models_folder() / "13frames.zip", write_controlnet(tmp_path / "c"), root="checkpoint-7500/controlnet/"
        )
        source = resolve_model("vdm-evfi-13")
        assert isinstance(source, Parts)
        assert source.base == base
        assert source.info.num_frames == 13
        assert archive.stem in source.controlnet.name
        assert source.refiner == packaged_refiner()

    def test_only_what_is_missing_is_named(self, tmp_path: Path) -> None:
        write_controlnet(models_folder() / "vdm-evfi")
        with pytest.raises(ModelError) as caught:
            resolve_model("vdm-evfi")
        assert "base weights" in str(caught.value)
        assert "event ControlNet" not in str(caught.value)

    def test_unknown_name(self) -> None:
        with pytest.raises(ModelError, match=r"no model 'vdm-evi': expected one of evfi-tiny, vdm-evfi, vdm-evfi-13"):
            resolve_model("vdm-evi")


class TestFolders:
    def test_bundle(self, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
        tiny_bundle.save(tmp_path / "bundle")
        assert resolve_model(tmp_path / "bundle") == BundleFolder(tmp_path / "bundle")
        loaded = load_model(tmp_path / "bundle", dtype=torch.bfloat16)
        assert loaded.info == tiny_bundle.info
        assert loaded.sampling == {"num_inference_steps": 2}
        expected = tiny_bundle.unet.state_dict()
        for name, value in loaded.unet.state_dict().items():
            assert torch.equal(value, expected[name].to(torch.bfloat16)), name

    def test_base_with_controlnet_but_no_bundle_file(self, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
        folder = tmp_path / "parts"
        tiny_bundle.save(folder)
        (folder / "evfi.json").unlink()
        loaded = load_model(str(folder))
        assert loaded.info.name == "parts"
        assert loaded.event_stack == StackConfig()
        assert loaded.refiner is None
        shutil.copytree(packaged_refiner(), folder / "refiner")
        assert load_model(str(folder)).refiner is not None

    def test_bundle_from_the_hub_cache(self, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
        tiny_bundle.save(tmp_path / "bundle")
        write_hub_cache(tmp_path / "bundle", HUB_ID, tmp_path / "hub-cache")
        assert load_model(HUB_ID).info == tiny_bundle.info

    def test_a_controlnet_alone_goes_onto_svd(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="stable-video-diffusion-img2vid"):
            resolve_model(write_controlnet(tmp_path / "mine"))

    def test_on_svd_it_gets_the_refiner_of_the_package(
        self, tiny_bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = models_folder() / "stable-video-diffusion-img2vid"
        tiny_bundle.save(base)
        write_controlnet(base / "image_encoder", weights="model.safetensors")
        shutil.copytree(base / "controlnet", tmp_path / "mine")
        source = resolve_model(tmp_path / "mine")
        assert isinstance(source, Parts)
        assert source.refiner == packaged_refiner()
        assert "refiner: Apache-2.0" in source.info.licence
        (base / "image_encoder" / "config.json").unlink()  # what was needed to pass for SVD's base is no encoder
        with monkeypatch.context() as patched:
            patched.setattr(registry, "resolve_model", lambda _: source)
            loaded = load_model("mine", dtype=torch.bfloat16)
        assert loaded.refiner is not None
        assert loaded.refiner.dtype == torch.bfloat16
        expected = load_model("evfi-tiny", dtype=torch.bfloat16).refiner
        assert expected is not None
        assert weights_fingerprint({"refiner": loaded.refiner}) == weights_fingerprint({"refiner": expected})

    def test_the_fingerprint_of_parts_sees_the_refiner(
        self, tiny_bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny_bundle.save(tmp_path / "base")
        parts = Parts(tmp_path / "base", tmp_path / "base" / "controlnet", None, tiny_bundle.info, StackConfig(), {})
        refiner = tmp_path / "refiner"
        shutil.copytree(packaged_refiner(), refiner)

        def fingerprint(source: Parts) -> str:
            monkeypatch.setattr(facts, "resolve_model", lambda _: source)
            return facts.model_facts("any").fingerprint

        prints = [fingerprint(parts), fingerprint(replace(parts, refiner=refiner))]
        config = json.loads((refiner / "config.json").read_text(encoding="utf-8"))
        (refiner / "config.json").write_text(json.dumps({**config, "matching_radius": 2}), encoding="utf-8")
        prints.append(fingerprint(replace(parts, refiner=refiner)))
        assert len(set(prints)) == 3

    def test_hub_id_that_is_not_there(self) -> None:
        with pytest.raises(ModelError, match=rf"{HUB_ID} could not be downloaded .*HF_HUB_OFFLINE is set"):
            resolve_model(HUB_ID)

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no ControlNet in .* found no files"):
            resolve_model(tmp_path)


class TestControlNetPlaces:
    @pytest.mark.parametrize(
        "place", ["", "controlnet", "checkpoint-9000/controlnet", "5frames/checkpoint-9000/controlnet"]
    )
    def test_folder_and_zip(self, place: str, tmp_path: Path) -> None:
        folder = write_controlnet(tmp_path / "given" / place) if place else write_controlnet(tmp_path / "given")
        assert resolve_controlnet(tmp_path / "given") == folder
        unpacked = resolve_controlnet(write_zip(tmp_path / "given.zip", tmp_path / "given"))
        assert sorted(path.name for path in unpacked.iterdir()) == [
            "config.json",
            "diffusion_pytorch_model.safetensors",
        ]
        name = "diffusion_pytorch_model.safetensors"
        assert (unpacked / name).read_bytes() == (folder / name).read_bytes()

    def test_latest_checkpoint_by_number(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for number in (500, 9000, 10000):
            write_controlnet(tmp_path / "run" / f"checkpoint-{number}" / "controlnet", value=number)
        with caplog.at_level("INFO", logger="evfi"):
            assert resolve_controlnet(tmp_path / "run") == tmp_path / "run" / "checkpoint-10000" / "controlnet"
        assert "checkpoint-10000" in caplog.text

    def test_hub_cache(self, tmp_path: Path) -> None:
        write_controlnet(tmp_path / "snapshot" / "controlnet")
        write_hub_cache(tmp_path / "snapshot", HUB_ID, tmp_path / "hub-cache")
        assert resolve_controlnet(HUB_ID).name == "controlnet"

    def test_pickles_are_refused(self, tmp_path: Path) -> None:
        folder = write_controlnet(tmp_path / "pickled", weights="diffusion_pytorch_model.bin")
        with pytest.raises(ModelError, match=r"only as a pickle \(diffusion_pytorch_model.bin\), which can run code"):
            resolve_controlnet(folder)
        with pytest.raises(ModelError, match="only as a pickle"):
            resolve_controlnet(write_zip(tmp_path / "pickled.zip", folder))

    def test_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "weights.safetensors").write_bytes(b"")
        with pytest.raises(ModelError, match="expected a folder or a zip archive"):
            resolve_controlnet(tmp_path / "weights.safetensors")

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="expected a folder, a zip archive or a hub id"):
            resolve_controlnet(tmp_path / "absent")


class TestUntrustedArchives:
    def test_members_cannot_leave_the_folder(self, tmp_path: Path) -> None:
        archive = write_zip(tmp_path / "slip.zip", write_controlnet(tmp_path / "c"), root="controlnet/")
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("controlnet/../../../escaped.safetensors", b"x")
            opened.writestr("/escaped.safetensors", b"x")
        unpacked = resolve_controlnet(archive)
        assert not list(tmp_path.rglob("escaped*"))
        assert len(list(unpacked.iterdir())) == 2

    def test_only_wanted_files_are_extracted(self, tmp_path: Path) -> None:
        folder = write_controlnet(tmp_path / "c")
        (folder / "optimizer.bin").write_bytes(b"\x80\x04N.")
        (folder / "run.py").write_text("raise SystemExit", encoding="utf-8")
        unpacked = resolve_controlnet(write_zip(tmp_path / "c.zip", folder))
        assert {path.suffix for path in unpacked.iterdir()} == {".json", ".safetensors"}

    def test_bomb(self, tmp_path: Path) -> None:
        folder = write_controlnet(tmp_path / "bomb")
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(bytes(65 * 2**20))
        with pytest.raises(ModelError, match="not trusted"):
            resolve_controlnet(write_zip(tmp_path / "bomb.zip", folder))
        assert not list(tmp_path.glob("evfi-cache/controlnets/*"))

    def test_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 100)
        with pytest.raises(ModelError, match="at most 100"):
            resolve_controlnet(write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c")))

    def test_disk_too_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = type("Usage", (), {"free": 10})
        monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ResourceError, match="10 are free"):
            resolve_controlnet(write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c")))

    def test_truncated(self, tmp_path: Path) -> None:
        archive = write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c"))
        archive.write_bytes(archive.read_bytes()[:-10])
        with pytest.raises(ModelError):
            resolve_controlnet(archive)

    def test_damaged_member_leaves_nothing_behind(self, tmp_path: Path) -> None:
        archive = write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c"))
        content = bytearray(archive.read_bytes())
        start = content.find(b"diffusion_pytorch_model.safetensors") + 40
        content[start : start + 20] = bytes(20)
        archive.write_bytes(content)
        with pytest.raises(ModelError, match="fetch it again"):
            resolve_controlnet(archive)
        assert not [path for path in tmp_path.glob("evfi-cache/controlnets/*") if not path.name.startswith(".")]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(position=st.integers(0, 10**6), value=st.integers(0, 255))
    def test_any_damage_is_harmless_or_refused(self, position: int, value: int, tmp_path_factory: Any) -> None:
        folder = tmp_path_factory.mktemp("damage")
        archive = write_zip(folder / "c.zip", write_controlnet(folder / "c"))
        content = bytearray(archive.read_bytes())
        content[position % len(content)] = value
        archive.write_bytes(content)
        try:
            unpacked = resolve_controlnet(archive)
        except ModelError as error:
            assert "\n" not in str(error)
        else:
            assert sorted(path.suffix for path in unpacked.iterdir()) == [".json", ".safetensors"]

    def test_names_with_line_ends_do_not_break_the_message(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "c.zip", "w") as opened:
            opened.writestr("c\nonfig\x1b[31m.json", "{}")
        with pytest.raises(ModelError, match=r"found c\\nonfig\\x1b\[31m\.json$"):
            resolve_controlnet(tmp_path / "c.zip")

    def test_what_a_killed_run_left_is_removed(self, tmp_path: Path) -> None:
        first = resolve_controlnet(write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c")))
        killed_while_writing(first.with_name("d-0123456789ab"))
        assert len(list(first.parent.iterdir())) == 2
        second = resolve_controlnet(write_zip(tmp_path / "d.zip", tmp_path / "c"))
        assert sorted(first.parent.iterdir()) == sorted([first, second])

    def test_unpacked_once_and_again_when_the_archive_changes(self, tmp_path: Path) -> None:
        archive = write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c"))
        first = resolve_controlnet(archive)
        assert resolve_controlnet(archive) == first
        write_zip(archive, write_controlnet(tmp_path / "d" / "controlnet", value=1.0).parent)
        assert resolve_controlnet(archive) != first

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        archive = write_zip(tmp_path / "c.zip", write_controlnet(tmp_path / "c"))
        with zipfile.ZipFile(archive, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
            opened.writestr("config.json", json.dumps({}))
        with pytest.raises(ModelError, match="two files with the same name"):
            resolve_controlnet(archive)


def test_reference_networks_load(shared_dir: Path) -> None:
    """The small random networks of the reference numbers have the released layout and its misleading config."""
    loaded = load_model(shared_dir / "golden" / "tiny_svd")
    assert loaded.controlnet.config.conditioning_channels == 6
    assert loaded.image_encoder is not None
