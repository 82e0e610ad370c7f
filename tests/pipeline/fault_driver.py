"""`evfi` with a quick stand-in for the model: the real command line, folders, processes and films, a pretended network.

Run as a process of its own, which tests kill, interrupt and starve; or within a test's process, where nothing of that happens.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fault_jobs import Finished

_MODULE = "evfi.pipeline.models"


def stand_in() -> ModuleType:
    """Takes the place of the module that loads models, which takes ten seconds to import."""
    from fault_model import StandInRequest

    module = ModuleType(_MODULE)
    module.__dict__.update(ModelRequest=StandInRequest, parse_devices=lambda text: tuple(text.split(",")))
    return module


def run_here(arguments: Sequence[str]) -> Finished:
    """Run the command within this process."""
    from fault_jobs import Finished

    from evfi.cli import main as run

    before = sys.modules.get(_MODULE)
    sys.modules[_MODULE] = stand_in()
    try:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = run(arguments)
    finally:
        del sys.modules[_MODULE]
        if before is not None:
            sys.modules[_MODULE] = before
    return Finished(status, out.getvalue(), err.getvalue())


def main() -> int:
    """Run the command with this process's arguments."""
    sys.modules[_MODULE] = stand_in()

    from evfi.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
