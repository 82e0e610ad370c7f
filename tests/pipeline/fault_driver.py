"""`evfi` with a quick stand-in for the model: the real command line, folders, processes and videos, a pretended network.

Run as a process of its own, which tests kill, interrupt and starve; or within a test's process, where nothing of that happens.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from fault_jobs import Finished


def pretended() -> AbstractContextManager[Any]:
    """The command loads no model."""
    from fault_model import StandInRequest

    return patch("evfi.pipeline.models.ModelRequest", StandInRequest)


def run_here(arguments: Sequence[str]) -> Finished:
    """Run the command within this process."""
    from fault_jobs import Finished

    from evfi.cli import main as run

    with pretended(), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = run(arguments)
    return Finished(status, out.getvalue(), err.getvalue())


def main() -> int:
    """Run the command with this process's arguments."""
    from evfi.cli import main as run

    with pretended():
        return run()


if __name__ == "__main__":
    sys.exit(main())
