"""The report of an evaluation: one self-contained HTML file.

Results come in, a page goes out; nothing is measured here. Equal results give equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from evfi.evaluation.report.context import ReportContext
from evfi.evaluation.report.pictures import PictureSource
from evfi.evaluation.report.sections import render
from evfi.evaluation.results import EvaluationResults
from evfi.files import written_whole


def write_report(path: str | Path, results: EvaluationResults, pictures: PictureSource | None = None) -> None:
    """Write the report of an evaluation.

    Args:
        path: the .html file.
        results: what is shown.
        pictures: gives the pictures of the windows that are shown; without, the report has none.

    Raises:
        OutputError: the disk refuses.
        EvfiError: pictures cannot be read.
    """
    text = render(ReportContext(results), pictures)
    with written_whole(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
