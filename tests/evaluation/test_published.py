"""Published numbers: every row has its source, and none is shown beside another protocol's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evfi.errors import ConfigError
from evfi.evaluation.protocol import load_protocol, protocol_names
from evfi.evaluation.published import UNSPECIFIED, all_published_results, published_results, results_from_text
from evfi.recordings.opening import RECORDING_FORMATS


def test_every_row_names_its_source_and_metrics() -> None:
    rows = all_published_results()
    readers = {reader.name for reader in RECORDING_FORMATS}
    for row in rows:
        assert row.url.startswith("https://") and row.source and row.metrics, row
        assert row.layout in readers, row
    assert len({(row.url, row.system, row.dataset, row.skip, row.notes) for row in rows}) == len(rows)


def test_rows_fit_their_protocol() -> None:
    for row in all_published_results():
        if row.protocol is None:
            continue
        protocol = load_protocol(row.protocol)
        assert set(row.metrics) <= set(protocol.metrics), row
        assert row.skip in protocol.skips and row.dataset in protocol.datasets and row.layout in protocol.layouts, row
        assert row.truth in protocol.truths and row.average == protocol.average, row


def test_only_rows_of_one_protocol_are_given() -> None:
    (row,) = (row for row in published_results("continuitycam", "BS-ERGB", 1) if row.system == "ContinuityCam")
    assert row.metrics == {"psnr_rgb": 26.30, "lpips_alex": 0.083}
    assert len(published_results("continuitycam", skip=3)) == 6
    assert published_results("continuitycam", layout="ecd") == ()
    assert published_results("mine") == published_results("continuitycam", "HQF") == published_results("raw") == ()
    shown = [row for name in protocol_names() for row in published_results(name)]
    assert all(row.protocol for row in shown) and len(shown) < len(all_published_results())


def listed(**changes: Any) -> str:
    row = {
        "system": "Some", "dataset": "BS-ERGB", "layout": "bs-ergb", "skip": 1, "protocol": "cbmnet", "truth": "raw",
        "average": "frames", "by": "authors", "metrics": {"psnr_rgb": 30}, "notes": "",
    }  # fmt: skip
    source = {"source": "paper", "url": "https://example.org", "year": 2024, "results": [{**row, **changes}]}
    return json.dumps({"format": "evfi-published-results", "version": 1, "sources": [source]})


def test_rows_are_read_strictly() -> None:
    (row,) = results_from_text(listed(), "mine")
    assert (row.metrics, row.notes, row.year) == ({"psnr_rgb": 30.0}, "", 2024)
    for changes, message in (
        ({"protocol": "cbm"}, '"protocol" of an entry of "results" must be one of raw'),
        ({"metrics": {f"psnr{UNSPECIFIED}": 30}}, '"protocol" of .* must be null where a metric'),
        ({"metrics": {"psnr_rgb": "30"}}, '"psnr_rgb" of "metrics" must be a number'),
        ({"by": "me"}, "one of authors, others"),
        ({"page": 3}, 'unknown key "page"'),
        ({"notes": None}, "a non-empty string"),
    ):
        with pytest.raises(ConfigError, match=message):
            results_from_text(listed(**changes), "mine")
