"""Tables and lists of facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evfi.report.markup import Html, element, joined


def table(head: Sequence[object], bodies: Iterable[Iterable[Html]], caption: object = None, kind: str = "") -> Html:
    """A table that scrolls sideways where the page is narrow.

    Args:
        head: column titles; the first is that of the names.
        bodies: groups of rows.
        caption: above it.
        kind: further classes.
    """
    row = element("tr", *(element("th", title, scope="col") for title in head))
    groups = [element("tbody", *rows) for rows in bodies]
    inside = [element("caption", caption)] if caption else []
    whole = element("table", *inside, element("thead", row), *groups, class_=f"numbers {kind}".strip())
    return element("div", whole, class_="scroll")


def facts_list(facts: Sequence[tuple[str, object]]) -> Html:
    """A list of names and values; names without a value are left out."""
    pairs = [joined([element("dt", name), element("dd", value)]) for name, value in facts if value]
    return element("dl", *pairs, class_="facts")
