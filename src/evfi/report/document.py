"""The HTML page: sections in order, with inline style and script and no external resources.

A content security policy in the page itself lets only this style, this script and embedded pictures through, so that
nothing that the shown files may hold can load or run anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from evfi.report.markup import Html, element

_PACKAGE: Final = "evfi.report"
_MAX_STYLE_BYTES: Final = 2**20
_BEGINNING: Final = re.compile(
    rb"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" "
    rb"content=\"default-src [^\"]*?style-src &#x27;sha256-([A-Za-z0-9+/=]+)&#x27;[^\"]*\">.*?<style>(.*?)</style>",
    re.DOTALL,
)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its address in the page.
        title: its heading.
        body: what it says.
    """

    anchor: str
    title: str
    body: Html


def page(title: str, introduction: Html, sections: Sequence[Section], footer: str) -> str:
    """The whole page as text, one final newline."""
    style, script = _read("style.css"), _read("script.js")
    only_style, only_script = (_digest(text.encode()) for text in (style, script))
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{only_style}'; script-src 'sha256-{only_script}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    )
    links = [element("a", section.title, href=f"#{section.anchor}") for section in sections]
    body = element(
        "body",
        element("header", element("h1", title), introduction, element("nav", *links, aria_label="Contents")),
        element("main", *(_section(section) for section in sections)),
        element("footer", footer),
        element("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def is_page(path: Path) -> bool:
    """Whether a file is a page of this kind, known by its beginning: a policy that lets only the style inside it through."""
    try:
        if not path.is_file() or path.is_symlink():
            return False
        with path.open("rb") as file:
            match = _BEGINNING.match(file.read(_MAX_STYLE_BYTES))
    except OSError:
        return False
    return match is not None and _digest(match[2]) == match[1].decode("ascii")


def _section(section: Section) -> Html:
    return element("section", element("h2", section.title), section.body, id=section.anchor)


def _read(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
