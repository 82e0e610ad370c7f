"""What CONTRIBUTING names exists: the functions that a window passes through, the layers, and the pages it links to."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

import evfi

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WAY = CONTRIBUTING.split("## Where things happen")[1].split("\n## ")[0]
NAMES = list(dict.fromkeys(re.findall(r"`(evfi(?:\.\w+)+)`", WAY)))


@pytest.mark.parametrize("name", NAMES)
def test_names_exist(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None


def test_the_way_begins_and_ends_where_it_should() -> None:
    assert len(NAMES) > 12
    assert (NAMES[0], NAMES[-1]) == ("evfi.cli.interpolate.run", "evfi.pipeline.reporting.report_of_job")


def test_every_layer_is_listed() -> None:
    listed = re.findall(r"\w+", CONTRIBUTING.split("## Layers")[1].split("```")[1])
    assert set(listed) == {module.name for module in pkgutil.iter_modules(evfi.__path__)} - {"__main__"}
    assert len(listed) == len(set(listed))
    assert listed.index("interpolator") < listed.index("workers") < listed.index("pipeline")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    assert {page for page in pages if f"({page}" not in index} == set()
