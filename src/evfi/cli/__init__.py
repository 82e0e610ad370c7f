"""The command line: `evfi COMMAND`.

A handler parses, calls the library, prints. Results go to stdout, progress and warnings to stderr. Exit status: 0 done,
1 failed (one line says why), 2 wrong usage. Options and their help are generated from the dataclasses that the library
itself uses; a command's code is imported when that command is used, so that `evfi --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes the process's own.

    Returns:
        The exit status.
    """
    try:
        from evfi.cli.dispatch import main as run
    except KeyboardInterrupt:  # Ctrl-C while Python still imports
        return 130
    return run(arguments)
