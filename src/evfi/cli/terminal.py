"""All output to the terminal: text and log, without control sequences.

File names, models' names and licences, and notes in recordings come from strangers. Every line goes through `print_lines`,
which shows control characters escaped; nothing else in the command line prints.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

from evfi.errors import OutputError, escaped

_FEWEST_COLUMNS: Final = 40


def print_lines(*lines: str, to_stderr: bool = False) -> None:
    r"""Print lines, flushed; control characters, line breaks among them, are shown escaped (``\x1b``).

    Args:
        lines: each is one line on the terminal, whatever is in it.
        to_stderr: print there instead of on stdout; where that fails, nobody can be told, and the work goes on.

    Raises:
        OutputError: stdout is a file that cannot be written, e.g. because the disk is full.
        BrokenPipeError: nobody reads any more.
    """
    if lines:
        _write("".join(f"{escaped(line)}\n" for line in lines), to_stderr=to_stderr)


def flush_stdout() -> None:
    """Write what still waits, e.g. the help of a command.

    Raises:
        OutputError: as for `print_lines`.
        BrokenPipeError: nobody reads any more.
    """
    _write("", to_stderr=False)


def _write(text: str, *, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    if stream is None:  # there is no such stream
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _close(stream)
        if to_stderr:
            sys.stderr = _nowhere()
            return
        sys.stdout = _nowhere()
        raise OutputError(
            f"cannot write to stdout: {error.strerror}; the files already written are complete; free some space, or "
            "redirect the output elsewhere"
        ) from error


def _close(stream: TextIO) -> None:
    """Drop what a stream still holds, so that Python does not try to write it again at its end."""
    with suppress(OSError):
        stream.close()


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON in ASCII, flushed; its strings keep all their characters."""
    text = json.dumps(value, indent=indent).replace("\x7f", "\\u007f")  # the one that JSON lets through
    print_lines(*text.split("\n"))


def prepare_streams() -> None:
    """Make sure that output cannot fail when the work is done.

    A terminal that lacks a character shows a question mark; closed streams swallow what is written; help is laid out for
    terminals of 40 columns and more, since in a few columns the parser's layout does not end.
    """
    if shutil.get_terminal_size().columns < _FEWEST_COLUMNS:
        os.environ["COLUMNS"] = str(_FEWEST_COLUMNS)
    if sys.stdout is None:
        sys.stdout = _nowhere()
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
