"""The command line: `evfi COMMAND`.

A handler parses, calls the library, prints. Results go to stdout, progress and warnings to stderr. Exit status: 0 done,
1 failed (one line says why), 2 wrong usage. Options and their help are generated from the dataclasses that the library
itself uses; a command's code is imported when that command is used, so that `evfi --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evfi.cli.interrupts import one_interrupt

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes the process's own.

    Returns:
        The exit status.
    """
    try:
        with one_interrupt(is_last=arguments is None):
            from evfi.cli.dispatch import run

            status = run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # while Python still imports, or when all was said
        status = 130
    # Python remembers an interrupt within code made of text (dataclasses are) and `python -m` would then end by a signal;
    # other code made of text lets it forget
    eval("0")
    return status
