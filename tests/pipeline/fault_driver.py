"""`evfi` with a quick stand-in for the model: the real command line, folders, processes and films, a pretended network.

Run as a process of its own, which tests kill, interrupt and starve.
"""

from __future__ import annotations

import sys
from types import ModuleType


def main() -> int:
    from fault_model import StandInRequest

    stand_in = ModuleType("evfi.pipeline.models")  # the real one takes ten seconds to import
    stand_in.__dict__.update(ModelRequest=StandInRequest, parse_devices=lambda text: tuple(text.split(",")))
    sys.modules["evfi.pipeline.models"] = stand_in

    from evfi.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
