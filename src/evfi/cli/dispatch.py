"""From arguments to a command, and from its errors to one line and an exit status."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Final

from evfi import __version__
from evfi.cli.numbers import as_typed
from evfi.errors import ConfigError, EvfiError
from evfi.files import one_line

COMMANDS: Final = {
    "interpolate": "turn a recording of key frames and events into slow-motion video",
    "inspect": "say what is in a recording or an event file, and what is wrong with it",
    "convert": "write a recording's events, or all of it, in another format",
    "demo": "make a short synthetic recording, interpolate it, compare with the truth",
    "simulate": "make a recording from an ordinary video, by simulating an event camera",
    "evaluate": "measure how close interpolated frames come to true ones, and compare systems",
    "benchmark": "measure how fast, in how much memory and how closely frames are made on this machine",
    "train": "train one of a model's four parts",
}
"""Each command and what it does; its code is `run(arguments)` in `evfi.cli.<command>`."""

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes the process's own.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _show_log()
    try:
        command = arguments[0] if arguments and arguments[0] in COMMANDS else _parse_without_command(arguments)
        with _termination_as_interrupt():
            import_module(f"evfi.cli.{command}").run(arguments[1:])
    except EvfiError as error:
        is_usage = isinstance(error, ConfigError)
        return _fail(
            as_typed(one_line(error), arguments) if is_usage else one_line(error), USAGE if is_usage else FAILED
        )
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted; nothing was written", INTERRUPTED)
    except BrokenPipeError:  # who read our output has left
        sys.stderr.close()
        return FAILED
    except (MemoryError, RuntimeError) as error:
        if not _is_about_memory(error):
            raise
        return _fail("not enough memory; use a smaller picture, a lower --batch-size, or close other programs", FAILED)
    return 0


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let a polite kill (SIGTERM) end the work as Ctrl-C does, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse_without_command(arguments: list[str]) -> str:
    """Handle --help and --version, which end the program.

    Raises:
        ConfigError: it is neither.
    """
    if arguments not in (["--help"], ["-h"], ["--version"]):
        problem = f"unknown command '{arguments[0]}'" if arguments else "expected a command, got none"
        raise ConfigError(f"{problem}; commands are {', '.join(COMMANDS)}; see `evfi --help`")
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="evfi",
        description="Slow-motion video from key frames and an event camera.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
        + "\n\n`evfi COMMAND --help` shows a command's options. Begin with `evfi demo`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evfi {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=tuple(COMMANDS), help="see below")
    return str(parser.parse_args(arguments).command)


def _fail(message: str, status: int) -> int:
    print(f"evfi: error: {message}", file=sys.stderr)
    return status


def _is_about_memory(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "allocate memory" in str(error)


def _show_log() -> None:
    """Let the library's own log reach the terminal: notes on the model and its licence, warnings on recordings."""
    log = logging.getLogger("evfi")
    if not log.handlers:
        handler = _StandardErrorHandler()
        handler.setFormatter(_Formatter())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


class _StandardErrorHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever stderr is at the moment, which a progress bar or a test may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line per record; warnings say that they are."""
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        return f"evfi: {mark}{record.getMessage()}"
