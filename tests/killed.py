"""A process that is killed while it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def killed_while_writing(path: Path) -> None:
    """Let a process end in the middle of writing a file."""
    code = (
        "import os, sys; from pathlib import Path; from evfi.files import temporary_beside\n"
        "with temporary_beside(Path(sys.argv[1])) as partial: partial.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
