"""Which model a job uses, on what, and all that its frames depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evfi.errors import ConfigError, ModelError, ResourceError
from evfi.models.facts import ModelFacts, model_facts
from evfi.pipeline import models
from evfi.pipeline.models import ModelRequest
from evfi.sampling.config import PIXELS_VERSION, SamplingConfig
from evfi.workers.devices import parse_devices
from tiny_models import tiny_bundle


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with three GPUs, as far as their number goes."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


class TestDevices:
    @pytest.mark.parametrize(
        ("text", "devices"),
        [
            ("auto", ("cuda:0", "cuda:1", "cuda:2")),
            ("cuda", ("cuda:0", "cuda:1", "cuda:2")),
            ("cuda:2, cuda:0", ("cuda:2", "cuda:0")),
            ("cpu", ("cpu",)),
            ("cpu,cpu", ("cpu", "cpu")),
        ],
    )
    def test_names(self, gpus, text, devices):
        assert parse_devices(text) == devices

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("cuda:0,cuda:0", ConfigError, "name each once"),
            ("cuda,cuda:0", ConfigError, "name each once"),
            ("cpu,cuda:0", ConfigError, "devices of one kind"),
            ("cuda:3", ResourceError, "no device cuda:3"),
            ("auto,cpu", ConfigError, "devices must be auto, or names"),
            ("gpu", ConfigError, "device must be"),
            ("", ConfigError, "device must be"),
            ("cpu,", ConfigError, "device must be"),
            ("meta", ConfigError, "devices must be auto, or names"),
            ("cpu:0,cuda:1", ConfigError, "devices of one kind"),
        ],
    )
    def test_what_cannot_be(self, gpus, text, error, message):
        with pytest.raises(error, match=message):
            parse_devices(text)

    def test_without_a_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        assert parse_devices("auto") == ("cpu",)
        with pytest.raises(ResourceError, match="0 usable GPU"):
            parse_devices("cuda")


FACTS = ModelFacts("some model", 5, {"num_inference_steps": 40}, "f" * 64)


class TestMadeOf:
    def test_all_settings_are_in_it(self):
        made_of = ModelRequest("x", settings={"tile_width": 128}).made_of(FACTS, "cpu")
        assert (made_of["model"], made_of["model files"]) == ("some model", "f" * 64)
        assert (made_of["precision"], made_of["kind of device"]) == ("float32", "cpu")
        assert set(made_of["sampling"]) == set(SamplingConfig.__dataclass_fields__)
        assert made_of["sampling"]["num_inference_steps"] == 40
        assert made_of["sampling"]["tile_width"] == 128

    @pytest.mark.parametrize(
        ("request_", "device"),
        [
            (ModelRequest(dtype="bfloat16"), "cpu"),
            (ModelRequest(preset="fast"), "cpu"),
            (ModelRequest(settings={"s_churn": 0.25}), "cpu"),
            (ModelRequest(), "cuda:0"),
        ],
    )
    def test_what_changes_frames_changes_it(self, request_, device):
        assert request_.made_of(FACTS, device) != ModelRequest().made_of(FACTS, "cpu")

    def test_another_version_of_pixels_changes_it(self, monkeypatch):
        before = ModelRequest().made_of(FACTS, "cpu")
        monkeypatch.setattr(models, "PIXELS_VERSION", PIXELS_VERSION + 1)
        assert ModelRequest().made_of(FACTS, "cpu") != before

    def test_retired_settings_of_the_models_files_change_nothing(self):
        old = replace(FACTS, sampling={**FACTS.sampling, "detail_restoration": True})
        assert ModelRequest().made_of(old, "cpu") == ModelRequest().made_of(FACTS, "cpu")

    def test_retired_settings_that_are_given_are_refused(self):
        with pytest.raises(ConfigError, match="texture_restoration was removed"):
            ModelRequest(settings={"texture_restoration": False}).made_of(FACTS, "cpu")

    def test_what_changes_no_frame_does_not(self):
        before = ModelRequest().made_of(FACTS, "cuda:0")
        assert ModelRequest().made_of(FACTS, "cuda:3") == before
        assert ModelRequest(max_memory=2**30).made_of(FACTS, "cuda:0") == before
        assert ModelRequest(dtype="float16").made_of(FACTS, "cuda:0") == before

    def test_wrong_settings_are_refused(self):
        with pytest.raises(ConfigError, match="num_inference_steps"):
            ModelRequest(settings={"num_inference_steps": 0}).made_of(FACTS, "cpu")


class TestFacts:
    def test_of_a_folder_without_loading_it(self, tmp_path):
        tiny_bundle().save(tmp_path / "model")
        facts = model_facts(tmp_path / "model")
        assert (facts.name, facts.num_frames) == ("test model", 5)
        assert facts.sampling == tiny_bundle().sampling
        assert model_facts(tmp_path / "model").fingerprint == facts.fingerprint
        (tmp_path / "model" / "README.md").write_text("A model card in other words.")
        assert model_facts(tmp_path / "model").fingerprint == facts.fingerprint
        weights = next(file for file in sorted((tmp_path / "model").rglob("*.safetensors")))
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        assert model_facts(tmp_path / "model").fingerprint != facts.fingerprint

    def test_of_the_model_in_the_package(self):
        facts = ModelRequest().facts()
        assert facts.name == "evfi-tiny"
        assert facts.num_frames > 2
        assert len(facts.fingerprint) == 64

    def test_of_no_model(self, tmp_path):
        with pytest.raises(ModelError):
            model_facts(tmp_path / "none")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ModelError):
            model_facts(Path(tmp_path / "empty"))
