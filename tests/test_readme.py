"""What the README promises exists: commands, options, models with their licences, recording layouts, Python names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import evfi
from evfi.cli.dispatch import COMMANDS
from evfi.cli.interpolate import InterpolateCommand
from evfi.cli.options import parse
from evfi.events.formats import EVENT_FORMATS, EventFormat
from evfi.models.registry import MODELS, RegisteredModel
from evfi.recordings.opening import RECORDING_FORMATS, RecordingFormat

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(InterpolateCommand, "interpolate", ["--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    table = README.split("| option | meaning |")[1].split("\n\n")[0]
    named = set(re.findall(r"--[a-z][a-z-]*", table))
    assert len(named) > 5
    assert named <= known


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert f"evfi {command}" in README


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_model_with_its_licence(model: RegisteredModel) -> None:
    assert f"`{model.name}`" in README
    for part in (model.base, model.controlnet):
        if part is not None:
            assert part.page in README
            assert f"{part.size_gb:g} GB" in README
            assert part.licence.removesuffix(" by its authors") in README
            assert all(place.removesuffix("/") in README for place in part.places)


@pytest.mark.parametrize("layout", RECORDING_FORMATS, ids=lambda layout: layout.name)
def test_every_recording_layout(layout: RecordingFormat) -> None:
    """The README leads to the pages that have them all."""
    section = README.split("### Recordings it reads")[1].split("###")[0]
    assert "docs/formats.md" in section
    assert "docs/datasets.md" in section
    pages = "".join((ROOT / page).read_text("utf-8") for page in ("docs/formats.md", "docs/datasets.md"))
    assert f"`{layout.name}`" in pages


@pytest.mark.parametrize("event_format", EVENT_FORMATS, ids=lambda event_format: event_format.name)
def test_every_event_format(event_format: EventFormat) -> None:
    assert f"`{event_format.name}`" in (ROOT / "docs/formats.md").read_text("utf-8")


def test_python_names_exist() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    compile(snippet, "README.md", "exec")
    for name in re.findall(r"evfi\.(\w+)", snippet):
        assert hasattr(evfi, name)


def test_local_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert "LICENSE" in links
    assert [link for link in links if not (ROOT / link).exists()] == []
