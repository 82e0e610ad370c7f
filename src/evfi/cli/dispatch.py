"""Dispatch arguments to a command, and turn its errors into one line and an exit status."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from evfi import __version__
from evfi.cli.numbers import as_typed, with_options
from evfi.cli.terminal import flush_stdout, prepare_streams, print_lines, show_log
from evfi.errors import ConfigError, EvfiError, is_about_memory
from evfi.files import one_line
from evfi.limits import check_variable

COMMANDS: Final = {
    "interpolate": "turn a recording of key frames and events into slow-motion video",
    "inspect": "show what a recording or an event file contains, and its problems",
    "convert": "convert a recording, or only its events, to another format",
    "demo": "make a short synthetic recording, interpolate it, compare with the ground truth",
    "simulate": "make a recording from an ordinary video with a simulated event camera",
    "evaluate": "measure how close interpolated frames are to the ground truth, and compare systems",
    "benchmark": "measure speed, memory use and accuracy of interpolation on this machine",
    "train": "train one of a model's four parts",
}
"""Each command and what it does; its code is `run(arguments)` in `evfi.cli.<command>`."""

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def run(arguments: list[str]) -> int:
    """Run a command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit status.
    """
    prepare_streams()
    show_log()
    if not _has_folder():
        return _fail("the current folder no longer exists; change to another folder (cd) and run again", FAILED)
    try:
        try:
            command = arguments[0] if arguments and arguments[0] in COMMANDS else _parse_without_command(arguments)
            check_variable()
            import_module(f"evfi.cli.{command}").run(arguments[1:])
        finally:
            flush_stdout()
    except EvfiError as error:
        is_usage = isinstance(error, ConfigError)
        message = one_line(error)
        if not is_usage:
            return _fail(message, FAILED)
        return _fail(with_options(as_typed(message, arguments), _typed_settings(arguments)), USAGE)
    except KeyboardInterrupt as interrupt:
        return _fail(_told_by(interrupt) or "interrupted; run the same command to start again", INTERRUPTED)
    except BrokenPipeError:  # who read our output has left
        sys.stderr.close()
        return FAILED
    except OSError as error:
        if error.errno is None:  # none of the operating system's
            raise
        where = f"cannot use {error.filename}: " if error.filename is not None else ""
        return _fail(f"{where}{one_line(error)}", FAILED)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_about_memory(error):
            raise
        smaller = "a lower --batch-size" if arguments[:1] == ["train"] else "smaller frames"
        return _fail(f"not enough memory; use {smaller}, or close other programs", FAILED)
    return 0


def _typed_settings(arguments: list[str]) -> dict[str, str]:
    """The settings of several words that the user gave: the option that was typed by the name of its field."""
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    fields = {option.removeprefix("--").replace("-", "_"): option for option in options}
    return {field: option for field, option in fields.items() if "_" in field}


def _has_folder() -> bool:
    """Whether the current folder exists; some libraries end the process when they are loaded without one."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _parse_without_command(arguments: list[str]) -> str:
    """Handle --help and --version, which end the program.

    Raises:
        ConfigError: it is neither.
    """
    if arguments not in (["--help"], ["-h"], ["--version"]):
        problem = f"unknown command '{arguments[0]}'" if arguments else "expected a command, got none"
        raise ConfigError(f"{problem}; available commands: {', '.join(COMMANDS)}; see `evfi --help`")
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="evfi",
        description="Slow-motion video from key frames and an event camera.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
        + "\n\n`evfi COMMAND --help` shows a command's options. Start with `evfi demo`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evfi {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=tuple(COMMANDS), help="see below")
    return str(parser.parse_args(arguments).command)


def _told_by(interrupt: BaseException | None) -> str:
    """What an interrupt says; if it came while another one was being handled, what that one says."""
    while interrupt is not None:
        if isinstance(interrupt, KeyboardInterrupt) and str(interrupt):
            return str(interrupt)
        interrupt = interrupt.__context__
    return ""


def _fail(message: str, status: int) -> int:
    print_lines(f"evfi: error: {message}", to_stderr=True)
    return status
