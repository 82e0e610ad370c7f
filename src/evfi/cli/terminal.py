"""All that reaches the terminal: the program's text and its log, with nothing in them that the terminal would obey.

File names, models' names and licences, and notes in recordings come from strangers. Every line goes through `print_lines`,
which shows control characters escaped; nothing else in the command line prints.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

from evfi.errors import escaped


def print_lines(*lines: str, to_stderr: bool = False) -> None:
    r"""Print lines, flushed; control characters, line breaks among them, are shown escaped (``\x1b``).

    Args:
        lines: each is one line on the terminal, whatever is in it.
        to_stderr: print there instead of on stdout.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    if stream is not None and lines:  # None: there is no such stream
        stream.write("".join(f"{escaped(line)}\n" for line in lines))
        stream.flush()


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON in ASCII, flushed; its strings keep all their characters."""
    text = json.dumps(value, indent=indent).replace("\x7f", "\\u007f")  # the one that JSON lets through
    print_lines(*text.split("\n"))


def prepare_stdout() -> None:
    """Let a terminal that lacks a character show a question mark, instead of failing when the work is done."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def show_log() -> None:
    """Let the library's own log reach the terminal: notes on the model and its licence, warnings on recordings."""
    log = logging.getLogger("evfi")
    if not log.handlers:
        log.addHandler(_LogOnStderr())
        log.setLevel(logging.INFO)
        log.propagate = False


class _LogOnStderr(logging.Handler):
    """Writes to whatever stderr is at the moment, which a progress bar or a test may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record in one line; warnings say that they are."""
        try:
            mark = "warning: " if record.levelno >= logging.WARNING else ""
            print_lines(f"evfi: {mark}{record.getMessage()}", to_stderr=True)
        except Exception:
            self.handleError(record)
