from __future__ import annotations

import base64
import hashlib

from evfi.report.document import Section, page
from evfi.report.markup import Html, element, escaped, number
from evfi.report.parts import facts_list, table
from html_page import parse_page

EVIL = "<script>alert('x')</script>\"&amp;\u202e\x00\ud800"


def test_page_allows_its_own_style_and_script_alone() -> None:
    root = parse_page(page(EVIL, element("p", EVIL), [Section("first", EVIL, element("p", EVIL))], EVIL))
    (policy,) = [node.attributes["content"] or "" for node in root.all("meta") if "http-equiv" in node.attributes]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (node,) = root.all(tag)
        assert base64.b64encode(hashlib.sha256(node.text.encode()).digest()).decode() in policy
    assert [link.attributes["href"] for link in root.all("nav")[0].all("a")] == ["#first"]


def test_only_markup_is_markup() -> None:
    assert escaped("<b>") == "&lt;b&gt;" and escaped(Html("<b>")) == "<b>"
    assert "\x00" not in escaped(EVIL) and "\u202e" not in escaped(EVIL)
    assert escaped(1.50) == "1.5" and number(-0.001, 2) == "0.00" and number(-1234.5, 1) == "−1\u2009234.5"


def test_tables_and_facts() -> None:
    (whole,) = parse_page(table(["Name", "<b>"], [[element("tr", element("td", EVIL))]], "words", "compact")).all(
        "table"
    )
    assert whole.classes() == {"numbers", "compact"}
    assert [title.text for title in whole.all("th")] == ["Name", "<b>"] and whole.all("caption")[0].text == "words"
    facts = parse_page(facts_list([("Made", "today"), ("Left out", None), ("Empty", "")]))
    assert [name.text for name in facts.all("dt")] == ["Made"] and [value.text for value in facts.all("dd")] == [
        "today"
    ]
