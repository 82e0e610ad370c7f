"""The command line: `evfi COMMAND`.

A handler parses, calls the library, prints. Results go to stdout, progress and warnings to stderr. Exit status: 0 done,
1 failed (one line says why), 2 wrong usage. Options and their help are generated from the dataclasses that the library
itself uses; a command's code is imported when that command is used, so that `evfi --help` answers at once.
"""

from evfi.cli.dispatch import main

__all__ = ["main"]
